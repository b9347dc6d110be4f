package containerd

import (
	"fmt"
	"reflect"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// wireContainer is a container of ours as containerd sends it.
func wireContainer(t testing.TB, change func(*containersapi.Container)) []byte {
	t.Helper()
	c := sealedContainer()
	sent := &containersapi.Container{
		ID: c.ID, Image: c.Image, SnapshotKey: c.SnapshotKey, Snapshotter: c.Snapshotter, Labels: c.Labels,
		Runtime:   &containersapi.Container_Runtime{Name: c.Runtime.Name, Options: wireAny(c.Runtime.Options)},
		Spec:      wireAny(c.Spec),
		CreatedAt: &timestamppb.Timestamp{Seconds: 1}, UpdatedAt: &timestamppb.Timestamp{Seconds: 2, Nanos: 3},
		Extensions: map[string]*anypb.Any{"x": {Value: []byte("y")}},
	}
	if change != nil {
		change(sent)
	}
	b, err := proto.Marshal(&containersapi.ListContainerMessage{Container: sent})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wireAny(v interface {
	GetTypeUrl() string
	GetValue() []byte
}) *anypb.Any {
	if v == nil {
		return nil
	}
	return &anypb.Any{TypeUrl: v.GetTypeUrl(), Value: v.GetValue()}
}

// A container is read when it was changed, and only then.
func TestListReadsWhatChanged(t *testing.T) {
	var m listMessage
	read := func(change func(*containersapi.Container)) listed {
		t.Helper()
		if err := m.read(wireContainer(t, change)); err != nil {
			t.Fatal(err)
		}
		return m.listed
	}
	first := read(nil)
	if !first.ours || first.drift != "" || first.record.module == "" {
		t.Fatalf("%+v", first)
	}
	m.known = map[string]listed{first.container.ID: first}
	changed := func(c *containersapi.Container) { c.Labels[labelRestarts] = "8"; c.Spec.Value = []byte("changed") }
	if again := read(changed); !reflect.DeepEqual(again, first) {
		t.Errorf("read again although nobody has changed it: %+v", again)
	}
	if again := read(func(c *containersapi.Container) { changed(c); c.UpdatedAt.Nanos++ }); again.record.restarts != 8 || again.drift == "" {
		t.Errorf("not read again: %+v", again)
	}
	if again := read(func(c *containersapi.Container) { changed(c); c.UpdatedAt = nil }); again.record.restarts != 8 || again.drift == "" {
		t.Errorf("not read again, with no word on when it was changed: %+v", again)
	}
}

func TestListRefusesWhatIsCutOff(t *testing.T) {
	whole := wireContainer(t, nil)
	for n := 1; n < len(whole); n += 7 {
		var m listMessage
		if err := m.read(whole[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes were read: %+v", n, len(whole), m.listed)
		}
	}
}

// A glance sees what protobuf's own reader reads.
func FuzzGlance(f *testing.F) {
	f.Add(wireContainer(f, nil))
	f.Add(wireContainer(f, func(c *containersapi.Container) { c.Labels, c.UpdatedAt = nil, nil }))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		id, _, err := glance(b)
		var whole containersapi.ListContainerMessage
		if proto.Unmarshal(b, &whole) != nil {
			return
		}
		if err != nil || string(id) != whole.GetContainer().GetID() {
			t.Fatalf("container %q, %v; protobuf reads %q", id, err, whole.GetContainer().GetID())
		}
	})
}

// BenchmarkList200 reads a list of which nothing changed.
func BenchmarkList200(b *testing.B) {
	m := listMessage{known: map[string]listed{}}
	var messages [][]byte
	for i := range 200 {
		message := wireContainer(b, func(c *containersapi.Container) {
			c.ID = fmt.Sprintf("m%03d.0123abcd", i)
			c.Spec.Value = make([]byte, 10<<10)
		})
		if err := m.read(message); err != nil {
			b.Fatal(err)
		}
		m.known[m.listed.container.ID] = m.listed
		messages = append(messages, message)
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, message := range messages {
			if err := m.read(message); err != nil {
				b.Fatal(err)
			}
		}
	}
}
