package outbox

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

// documents are Twins that do not change.
type documents []twin.Document

func (d documents) Documents() []twin.Document                          { return d }
func (d documents) Changed() <-chan struct{}                            { return nil }
func (d documents) Raise(context.Context, string, uint64, uint64) error { return nil }

// TestTwinThatCannotBeSentHoldsUpNoOther has three twins that the hub does not
// take in, each for another reason, before one that it does.
func TestTwinThatCannotBeSentHoldsUpNoOther(t *testing.T) {
	n := newNode(t)
	var mu sync.Mutex
	got := map[string]int{}
	var busy atomic.Bool // once
	busy.Store(true)
	hub := n.connect()
	if _, err := hub.Subscribe("up.*.twin", func(m *nats.Msg) {
		d, err := twin.ReadDocument(m.Data)
		receipt := twin.Receipt{Stored: true, Desired: 1, Reported: 1}
		switch {
		case err != nil:
			receipt = twin.Receipt{Error: &twin.Error{Code: twin.CodeMalformed, Message: err.Error()}}
		case d.Module == "b":
			receipt = twin.Receipt{Error: &twin.Error{Code: twin.CodeFailed, Message: "out of order"}}
		case d.Module == "c":
			receipt = twin.Receipt{Error: &twin.Error{Code: twin.CodeRefused, Message: "not this one"}}
		case d.Module == "e" && busy.CompareAndSwap(true, false):
			receipt = twin.Receipt{Error: &twin.Error{Code: twin.CodeBusy, Message: "too much waits"}}
		}
		mu.Lock()
		got[d.Module]++
		mu.Unlock()
		data, _ := json.Marshal(receipt)
		m.Respond(data)
	}); err != nil {
		t.Fatal(err)
	}
	if err := hub.Flush(); err != nil {
		t.Fatal(err)
	}
	var all documents
	for _, module := range []string{"", "b", "c", "d", "e"} {
		d := twin.Document{Device: device, Module: module}
		d.Properties.Desired.Version, d.Properties.Reported.Version = 1, 1
		switch module {
		case "": // larger than a message may be
			d.Tags = map[string]any{"v": strings.Repeat("x", 2<<20)}
		case "d": // as large as a document may be, and six times that with HTML escaped
			d.Tags = map[string]any{"v": strings.Repeat("<", twin.MaxDocument-512)}
		}
		all = append(all, d)
	}
	open(t, n, n.connect(), Config{Twins: all})
	until(t, "the last twins arrive, and what failed is tried again", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return got["d"] == 1 && got["e"] == 2 && got["b"] > 1 && got["c"] == 1
	})
}
