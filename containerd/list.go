package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// listed is what a look needs to know of a container.
type listed struct {
	container containers.Container // as far as readRecord reads it
	record    record
	ours      bool   // see readRecord
	drift     string // see driftOf
	updated   string // the daemon's stamp of its last change, by anybody, as sent
}

// list lists every container of the namespace. The daemon sends each with its
// specification, ten kilobytes of JSON. What did not change since the last list
// is not read again: that would be most of what a look costs.
func (r *Runtime) list(ctx context.Context) ([]listed, error) {
	conn, ok := r.client.Conn().(grpc.ClientConnInterface)
	if !ok {
		return nil, errors.New("no connection")
	}
	r.mu.Lock()
	m := listMessage{known: r.listed}
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx) // ends the stream whatever happens
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true},
		"/containerd.services.containers.v1.Containers/ListStream", grpc.ForceCodecV2(listCodec{}))
	if err == nil {
		err = stream.SendMsg(&m) // an empty request: no filters
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil && !errors.Is(err, io.EOF) { // which receiving explains
		return nil, errgrpc.ToNative(err)
	}
	var all []listed
	known := make(map[string]listed, len(m.known))
	for {
		err := stream.RecvMsg(&m)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errgrpc.ToNative(err)
		}
		all = append(all, m.listed)
		known[m.listed.container.ID] = m.listed
	}
	r.mu.Lock()
	r.listed = known
	r.mu.Unlock()
	return all, nil
}

// listMessage is a message of containerd's list of containers: the one request,
// which is empty, and each answer.
type listMessage struct {
	known  map[string]listed // of the list before, by id
	listed listed            // what the message said
}

// listCodec reads and writes listMessage for gRPC.
type listCodec struct{}

// Name is that of the encoding on the wire, which is protobuf's.
func (listCodec) Name() string { return "proto" }

// Marshal writes the request.
func (listCodec) Marshal(any) (mem.BufferSlice, error) { return nil, nil }

// Unmarshal reads an answer. data is not the caller's any more afterwards.
func (listCodec) Unmarshal(data mem.BufferSlice, v any) error {
	buffer := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buffer.Free()
	return v.(*listMessage).read(buffer.ReadOnlyData())
}

// read reads an answer, as far as it is news. Nothing of b is kept.
func (m *listMessage) read(b []byte) error {
	id, updated, err := glance(b)
	if err != nil {
		return fmt.Errorf("read a container of the list: %w", err)
	}
	if was, ok := m.known[string(id)]; ok && was.updated == string(updated) && was.updated != "" {
		m.listed = was
		return nil
	}
	var whole containersapi.ListContainerMessage
	if err := proto.Unmarshal(b, &whole); err != nil {
		return fmt.Errorf("read a container of the list: %w", err)
	}
	c := whole.GetContainer()
	m.listed = listed{updated: string(updated), container: containers.Container{
		ID: c.GetID(), Image: c.GetImage(), SnapshotKey: c.GetSnapshotKey(), Labels: c.GetLabels(),
	}}
	m.listed.record, m.listed.ours = readRecord(m.listed.container)
	m.listed.drift = driftOf(fromWire(c))
	return nil
}

// fromWire is a container as a client gets it, as far as driftOf looks at it.
func fromWire(c *containersapi.Container) containers.Container {
	whole := containers.Container{ID: c.GetID(), Labels: c.GetLabels(), Snapshotter: c.GetSnapshotter()}
	if c.GetSpec() != nil {
		whole.Spec = c.GetSpec()
	}
	if runtime := c.GetRuntime(); runtime != nil {
		whole.Runtime.Name = runtime.GetName()
		if runtime.GetOptions() != nil {
			whole.Runtime.Options = runtime.GetOptions()
		}
	}
	return whole
}

// Numbers of the fields that a glance finds.
const (
	fieldContainer = 1 // of ListContainerMessage
	fieldID        = 1 // of Container
	fieldUpdatedAt = 9 // of Container
)

// glance finds in an answer which container it is of, and the daemon's stamp of
// its last change, without reading the rest.
func glance(b []byte) (id, updated []byte, err error) {
	err = eachField(b, func(number protowire.Number, container []byte) error {
		if number != fieldContainer {
			return nil
		}
		return eachField(container, func(number protowire.Number, value []byte) error {
			switch number {
			case fieldID:
				id = value
			case fieldUpdatedAt:
				updated = value
			}
			return nil
		})
	})
	return id, updated, err
}

// eachField calls f with each field of a protobuf message that holds bytes: a
// text, or a message. Others are passed over.
func eachField(b []byte, f func(number protowire.Number, value []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(number, value); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
