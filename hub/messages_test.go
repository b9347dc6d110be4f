package hub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

// TestReadersSeeMessages reads as a person does: of what is asked for, from where
// it is asked for, and what comes after.
func TestReadersSeeMessages(t *testing.T) {
	c := newCloud(t)
	for _, device := range []string{"a", "b"} {
		nc := c.as(device)
		stands(t, nc, device, batchOf(at(0), 1, 3), at(3))
		alarms := batchOf(at(0), 1, 2)
		alarms.Lane, alarms.Items[1].Module = "alarms", "door"
		alarms.Items = append(alarms.Items, twin.Item{Count: 4, Reason: twin.LostTTL})
		stands(t, nc, device, alarms, at(6))
	}
	reader, err := OpenMessages(c.operator())
	if err != nil {
		t.Fatal(err)
	}
	say := func(m Message) string {
		if m.Lost != nil {
			return fmt.Sprintf("%s %s lost %d-%d %s", m.Device, m.Lane, m.Lost.From, m.Lost.To, m.Lost.Reason)
		}
		return fmt.Sprintf("%s %s %s/%s %d %s", m.Device, m.Lane, m.Module, m.Name, m.Seq, m.Body)
	}
	for _, q := range []struct {
		filter Filter
		from   uint64
		want   []string
	}{
		{Filter{Device: "b", Lane: "default"}, 0, []string{"b default sensor/n 1 1", "b default sensor/n 2 2", "b default sensor/n 3 3"}},
		{Filter{Lane: "alarms"}, 0, []string{"a alarms sensor/n 1 1", "a alarms door/n 2 2", "a alarms lost 3-6 ttl", "b alarms sensor/n 1 1", "b alarms door/n 2 2", "b alarms lost 3-6 ttl"}},
		{Filter{Lane: "alarms"}, 6, []string{"a alarms lost 3-6 ttl", "b alarms sensor/n 1 1", "b alarms door/n 2 2", "b alarms lost 3-6 ttl"}},
		{Filter{Module: "door"}, 0, []string{"a alarms door/n 2 2", "b alarms door/n 2 2"}},
		{Filter{Device: "a", Name: "n", Lane: "default"}, 3, []string{"a default sensor/n 3 3"}},
		{Filter{Device: "nobody"}, 0, nil},
		{Filter{}, 12, []string{"b alarms lost 3-6 ttl"}},
		{Filter{}, 99, nil},
	} {
		var got []string
		if err := reader.Read(testContext(t), q.filter, q.from, func(m Message) bool { got = append(got, say(m)); return true }); err != nil || !slices.Equal(got, q.want) {
			t.Errorf("%+v from %d: %q, %v", q.filter, q.from, got, err)
		}
	}
	for _, bad := range []Filter{{Device: "*"}, {Device: "a.b"}, {Lane: ">"}, {Module: "A"}, {Name: " "}} {
		if err := reader.Read(testContext(t), bad, 0, func(Message) bool { return true }); err == nil {
			t.Errorf("%+v is a filter", bad)
		}
	}
	ctx, end := context.WithCancel(testContext(t))
	seen := make(chan string, 10)
	ended := make(chan error)
	go func() {
		ended <- reader.Follow(ctx, Filter{Device: "a", Lane: "default"}, 3, func(m Message) bool { seen <- say(m); return true })
	}()
	if got := <-seen; got != "a default sensor/n 3 3" {
		t.Error(got)
	}
	stands(t, c.as("a"), "a", batchOf(at(3), 4, 4), at(4))
	if got := <-seen; got != "a default sensor/n 4 4" {
		t.Error(got)
	}
	end()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestWhatNoHubWroteIsNoMessage: an operator may publish anything.
func TestWhatNoHubWroteIsNoMessage(t *testing.T) {
	c := newCloud(t)
	nc := c.operator()
	ours := nats.Header{twin.HeaderEpoch: {"e"}, twin.HeaderSeq: {"1"}}
	for _, m := range []*nats.Msg{
		{Subject: "messages.a.default.out.m.n", Data: []byte("x")},
		{Subject: "messages.a.default.out.m.n", Header: nats.Header{twin.HeaderEpoch: {"e"}, twin.HeaderSeq: {"-1"}}},
		{Subject: "messages.a", Header: ours},
		{Subject: "messages.a.default.out.m", Header: ours},
		{Subject: "messages.a.default.lost", Header: ours, Data: []byte(`{"from":5,"to":1}`)},
		{Subject: "messages.a.default.lost", Header: ours, Data: []byte(`x`)},
	} {
		if _, err := nc.RequestMsg(m, 20*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.hub.Messages().Read(testContext(t), Filter{}, 0, func(m Message) bool { t.Errorf("%+v", m); return true }); err != nil {
		t.Error(err)
	}
	// The lane stands nowhere that a device could have sent.
	stands(t, c.as("a"), "a", twin.Batch{Lane: "default"}, at(1)) // of the last one, which has epoch and sequence
}

// TestAuditFindsFaults reads lanes with something wrong.
func TestAuditFindsFaults(t *testing.T) {
	live := func(seqs ...uint64) (out []Message) {
		for _, s := range seqs {
			out = append(out, Message{Epoch: "e", Seq: s})
		}
		return out
	}
	late := func(seqs ...uint64) []Message {
		out := live(seqs...)
		for n := range out {
			out[n].Lane = "late"
		}
		return out
	}
	lost := func(from, to uint64, reason string) []Message {
		return []Message{{Epoch: "e", Seq: to, Lost: &twin.Lost{Epoch: "e", From: from, To: to, Reason: reason}}}
	}
	other := live(1, 2)
	for n := range other {
		other[n].Epoch = "f"
	}
	deferred := lost(3, 5, twin.LostDeferred)
	for name, c := range map[string]struct {
		messages []Message
		count    uint64
		waiting  uint64
		lost     map[string]uint64
		faults   string
	}{
		"nothing":           {nil, 0, 0, nil, ""},
		"all":               {live(1, 2, 3), 3, 0, nil, ""},
		"oldest are gone":   {live(7, 8), 2, 0, nil, ""},
		"hole":              {live(1, 2, 5), 3, 0, nil, "epoch e: 3 to 4 are missing"},
		"twice":             {live(1, 2, 2, 3), 4, 0, nil, "epoch e: 2 to 2 are there again, after 2"},
		"out of order":      {live(1, 3, 2), 3, 0, nil, "epoch e: 2 to 2 are missing; epoch e: 2 to 2 are there again, after 3"},
		"range":             {slices.Concat(live(1), lost(2, 9, twin.LostTTL), live(10)), 2, 0, map[string]uint64{twin.LostTTL: 8}, ""},
		"range overlaps":    {slices.Concat(live(1, 2), lost(2, 9, twin.LostTTL)), 2, 0, map[string]uint64{twin.LostTTL: 8}, "epoch e: 2 to 9 are there again, after 2"},
		"another epoch":     {slices.Concat(live(1, 2), other), 4, 0, nil, ""},
		"epoch again":       {slices.Concat(live(1, 2), other, live(3)), 5, 0, nil, "epoch e is there again, with 3"},
		"deferred":          {slices.Concat(live(1, 2), deferred, live(6)), 3, 3, nil, ""},
		"came late":         {slices.Concat(live(1, 2), deferred, late(3), live(6), late(4, 5)), 6, 0, nil, ""},
		"some came late":    {slices.Concat(live(1, 2), deferred, late(3)), 3, 2, nil, ""},
		"hole in the late":  {slices.Concat(live(1, 2), deferred, late(3, 5)), 4, 0, nil, "late, epoch e: 4 to 4 are missing"},
		"late twice":        {slices.Concat(live(1, 2), deferred, late(3, 3)), 4, 2, nil, "late, epoch e: 3 to 3 are there again, after 3"},
		"live and late":     {slices.Concat(live(1, 2), late(2)), 3, 0, nil, "late, epoch e: 2 to 2 were not deferred"},
		"its live are gone": {slices.Concat(late(3, 4), live(7)), 3, 0, nil, ""},
	} {
		l := newLedger("default")
		for _, m := range c.messages {
			if m.Lane == "late" {
				l.late(m)
			} else {
				l.live(m)
			}
		}
		l.compare()
		if got := strings.Join(l.Faults, "; "); got != c.faults || l.Messages != c.count || l.Waiting != c.waiting || !maps.Equal(l.Lost, c.lost) && len(c.lost)+len(l.Lost) > 0 {
			t.Errorf("%s: %+v, want faults %q", name, l.Audit, c.faults)
		}
	}
	l := newLedger("default")
	for seq := range uint64(10 * maxFaults) {
		l.live(Message{Epoch: "e", Seq: 2 * (seq + 1)})
	}
	if len(l.Faults) != maxFaults {
		t.Errorf("%d faults are listed", len(l.Faults))
	}
}
