package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// maxRaces is how often a document is tried again that another came before.
const maxRaces = 8

// answerTwin stores the newest document of one twin of a device.
func (h *Hub) answerTwin(ctx context.Context, device string, body []byte) any {
	d, err := readTwin(device, body)
	if err != nil {
		return twin.Receipt{Error: err}
	}
	for range maxRaces {
		receipt, err := h.storeTwin(ctx, d)
		if errors.Is(err, errRace) {
			continue
		}
		if err != nil {
			h.complain(fmt.Errorf("store the twin %s: %w", schema.Address(d.Device, d.Module), err))
			return twin.Receipt{Error: &twin.Error{Code: failure(err), Message: err.Error()}}
		}
		return receipt
	}
	return twin.Receipt{Error: &twin.Error{Code: twin.CodeBusy, Message: "the twin is being changed by another"}}
}

// readTwin checks what a device sent. A document that fails can never be
// stored, so the codes are below 500.
func readTwin(device string, body []byte) (twin.Document, *twin.Error) {
	if len(body) > twin.MaxDocument {
		return twin.Document{}, &twin.Error{Code: twin.CodeTooLarge, Message: fmt.Sprintf("twin has %d bytes, the most is %d", len(body), twin.MaxDocument)}
	}
	d, err := twin.ReadDocument(body)
	if err != nil {
		return d, &twin.Error{Code: twin.CodeMalformed, Message: err.Error()}
	}
	if d.Device != device {
		return d, &twin.Error{Code: twin.CodeRefused, Path: "device", Message: fmt.Sprintf("%q is not the sender %q", d.Device, device)}
	}
	if d.Module != "" {
		if err := schema.CheckName(d.Module); err != nil {
			return d, &twin.Error{Code: twin.CodeMalformed, Path: "module", Message: err.Error()}
		}
	}
	return d, nil
}

func failure(err error) int {
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == 10023 || api.ErrorCode == 10047 || api.ErrorCode == 10077) {
		return twin.CodeNoSpace
	}
	return twin.CodeFailed
}

// errRace says that the twin changed between reading and writing it.
var errRace = errors.New("the twin changed in between")

// storeTwin stores d unless what is there is as new.
func (h *Hub) storeTwin(ctx context.Context, d twin.Document) (twin.Receipt, error) {
	key := twinKey(d.Device, d.Module)
	data := d.Encode()
	held, err := h.twins.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		if _, err = h.twins.Create(ctx, key, data); err != nil {
			return twin.Receipt{}, raced(err)
		}
		return receipt(true, d), nil
	}
	if err != nil {
		return twin.Receipt{}, err
	}
	old, err := twin.ReadDocument(held.Value())
	if err == nil && !newer(d, old) {
		return receipt(bytes.Equal(data, held.Value()), old), nil
	}
	// What cannot be read is no twin; the device's own is better.
	if _, err := h.twins.Update(ctx, key, data, held.Revision()); err != nil {
		return twin.Receipt{}, raced(err)
	}
	return receipt(true, d), nil
}

// newer reports whether d may replace old: no version goes back, and one rises.
func newer(d, old twin.Document) bool {
	dd, dr := d.Properties.Desired.Version, d.Properties.Reported.Version
	od, or := old.Properties.Desired.Version, old.Properties.Reported.Version
	return dd >= od && dr >= or && (dd > od || dr > or)
}

func receipt(stored bool, d twin.Document) twin.Receipt {
	return twin.Receipt{Stored: stored, Desired: d.Properties.Desired.Version, Reported: d.Properties.Reported.Version}
}

// wrongLastSequence is what a cluster answers while another write of the same
// key is on its way.
const wrongLastSequence = 10164

func raced(err error) error {
	var api *jetstream.APIError
	if errors.Is(err, jetstream.ErrKeyExists) || errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == wrongLastSequence) {
		return errRace
	}
	return err
}

// twinKey is the key of a twin in the bucket: its prefix.
func twinKey(device, module string) string { return twin.Prefix(device, module) }
