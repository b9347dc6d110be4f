package hub

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf"
	disk "github.com/tidemark-edge/tidemark/twin/outbox/queue"
	"github.com/tidemark-edge/tidemark/twin/outbox/uplink"
)

// sender is a device's leaf with one lane's queue and the uplink, and nothing
// else of an outbox.
type sender struct {
	*gadget
	queue  *disk.Queue
	uplink *uplink.Uplink
	late   time.Duration
	order  bool // live first
	next   int
}

// run starts the device's process; g.close ends it.
func (s *sender) run() {
	s.t.Helper()
	l, err := leaf.Open(testContext(s.t), s.conf)
	if err != nil {
		s.t.Fatal(err)
	}
	local, err := l.Connect("outbox")
	if err != nil {
		s.t.Fatal(err)
	}
	up, err := l.ConnectHub("outbox")
	if err != nil {
		s.t.Fatal(err)
	}
	clock, err := disk.SystemClock()
	if err != nil {
		s.t.Fatal(err)
	}
	warn := func(err error) { s.t.Log("warns: ", err) }
	if s.queue, err = disk.Open(testContext(s.t), local, disk.Config{Lane: "default", MaxBytes: 64 << 20, Warn: warn}); err != nil {
		s.t.Fatal(err)
	}
	s.uplink = uplink.New(uplink.Config{Device: s.name, Hub: up, Dir: filepath.Join(s.conf.StateDir, "uplink"), Clock: clock, LateAfter: s.late, Warn: warn})
	s.uplink.SetLanes([]uplink.Lane{{Name: "default", TTL: time.Hour, LiveFirst: s.order, Queue: s.queue}})
	ctx, stop := context.WithCancel(context.Background())
	var done sync.WaitGroup
	kick := s.uplink.Kick
	done.Go(func() {
		if err := s.uplink.Run(ctx); err != nil {
			s.t.Error(err)
		}
	})
	go l.WatchLink(ctx, func(linked bool) {
		if linked {
			kick()
		}
	})
	s.leaf = l
	s.close = sync.OnceFunc(func() {
		stop()
		done.Wait()
		local.Close()
		up.Close()
		if err := l.Close(); err != nil {
			s.t.Error(err)
		}
	})
}

// store puts numbered messages into the queue, as records of ten.
func (s *sender) store(n int) {
	s.t.Helper()
	clock, err := disk.SystemClock()
	if err != nil {
		s.t.Fatal(err)
	}
	for range n / 10 {
		r := disk.Record{Count: 10, Stored: clock.Stamp()}
		for range 10 {
			s.next++
			r.Items = twin.Item{Count: 1, Module: "sensor", Name: "n", Time: time.Now(), Body: fmt.Append(nil, s.next)}.Append(r.Items)
		}
		if _, err := s.queue.Append(testContext(s.t), r); err != nil {
			s.t.Fatal(err)
		}
	}
}

// sent waits until the hub has confirmed everything.
func (s *sender) sent() {
	s.t.Helper()
	until(s.t, "all is sent", func() bool {
		_, last, _ := s.queue.Span()
		stats := s.uplink.Stats()["default"]
		return last == uint64(s.next) && stats.Linked && stats.Pending == 0
	})
}

// progress waits until the hub confirms some more.
func (s *sender) progress() {
	s.t.Helper()
	before := s.uplink.Stats()["default"].Delivered
	until(s.t, "messages flow", func() bool { return s.uplink.Stats()["default"].Delivered > before })
}

func newSender(t *testing.T, late time.Duration) (*sender, *cloud) {
	s := &sender{gadget: newGadget(t, "hannover01"), late: late, order: late > 0}
	c := newCloud(t, s.entry())
	s.proxy = newProxy(t, c.hub.LeafAddress())
	s.conf.Hub = &schema.HubLink{URL: "nats-leaf://" + s.proxy.address}
	s.run()
	t.Cleanup(func() { s.close() })
	return s, c
}

// TestLanesAcrossFaults (iotedge#706, #6006, #6950): whatever happens between the
// disk of a device and that of the hub, each message is there once, and in order.
func TestLanesAcrossFaults(t *testing.T) {
	for name, fault := range map[string]func(s *sender, c *cloud){
		"link cut":        func(s *sender, c *cloud) { s.proxy.cut(); s.proxy.mend() },
		"hub restarted":   func(s *sender, c *cloud) { c.stop(); c.start() },
		"agent restarted": func(s *sender, c *cloud) { s.close(); s.run() },
		"both restart":    func(s *sender, c *cloud) { c.stop(); s.close(); s.run(); c.start() },
		"answers lost, agent restarted": func(s *sender, c *cloud) {
			s.proxy.silence(toDevice)
			s.proxy.swallowed()
			s.proxy.cut()
			s.close()
			s.run()
			s.proxy.mend()
		},
	} {
		for order, late := range map[string]time.Duration{"strict": 0, "live first": time.Millisecond} {
			t.Run(name+", "+order, func(t *testing.T) {
				t.Parallel()
				s, c := newSender(t, late)
				for range 3 {
					s.proxy.cut()
					s.store(4000)
					s.proxy.mend()
					s.progress()
					s.store(10)
					fault(s, c)
				}
				s.store(10)
				s.sent()
				got := slices.Concat(c.came(s.name, "default"), c.came(s.name, twin.Late("default")))
				if late == 0 && !slices.Equal(got, numbers(1, s.next)) {
					t.Errorf("%d messages came, or not in order: %d were sent", len(got), s.next)
				}
				slices.Sort(got)
				if n := len(slices.Compact(got)); n != s.next {
					t.Errorf("%d messages came, %d were sent", n, s.next)
				}
				for _, a := range c.audited(s.name) {
					if a.Messages != uint64(s.next) || a.Waiting != 0 || len(a.Lost) != 0 || a.Epochs != 1 {
						t.Errorf("audit: %+v, want %d messages", a, s.next)
					}
				}
			})
		}
	}
}

// TestLanesAndAHubFromABackup: what the hub forgot and the device has no more is
// told; what it has comes again.
func TestLanesAndAHubFromABackup(t *testing.T) {
	s, c := newSender(t, 0)
	s.store(1000)
	s.sent()
	copy := c.saved()
	s.store(1000)
	s.sent()
	s.proxy.cut()
	s.store(500)
	c.restored(copy)
	s.proxy.mend()
	s.sent()
	for _, a := range c.audited(s.name) {
		if a.Messages+a.Lost[twin.LostSettled] != uint64(s.next) || a.Messages < 1500 {
			t.Errorf("audit: %+v, want %d messages, or told as settled", a, s.next)
		}
	}
}
