package main

import (
	"context"
	"errors"
	"os"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin/leaf"
)

// listener counts what is reported.
type listener struct {
	mu      sync.Mutex
	reports []schema.Report
	err     error
}

func (t *listener) Declare(context.Context, schema.Desired) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

func (t *listener) Report(_ context.Context, r schema.Report) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reports = append(t.reports, r)
	return t.err
}

// fail has everything fail from now on, or nothing any more.
func (t *listener) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
}

// watched runs a reporter whose surroundings are as look says for a while, and
// returns what it reported after the first.
func watched(t *testing.T, while time.Duration, look func(at time.Duration) schema.Surroundings, meanwhile func(*reporter, *listener)) []schema.Report {
	t.Helper()
	var out []schema.Report
	synctest.Test(t, func(t *testing.T) {
		start, inner := time.Now(), &listener{}
		r := &reporter{inner: inner, news: make(chan struct{}, 1), route: func(context.Context, []schema.Route) {}, relink: func() {},
			look: func(context.Context, schema.Report) schema.Surroundings { return look(time.Since(start)) }}
		ctx, cancel := context.WithCancel(t.Context())
		go r.watch(ctx, func(error) {})
		if err := r.Report(ctx, schema.Report{Phase: schema.PhaseHealthy}); err != nil {
			t.Fatal(err)
		}
		if meanwhile != nil {
			meanwhile(r, inner)
		}
		time.Sleep(while - time.Since(start))
		cancel()
		synctest.Wait()
		out = inner.reports[1:]
	})
	return out
}

func linked(is bool) schema.Surroundings {
	return schema.Surroundings{Hub: &schema.HubReport{URL: "tls://hub:7422", Linked: is}, Clock: &schema.ClockReport{Trusted: true}}
}

func lane(l schema.LaneReport) schema.Surroundings {
	s := linked(true)
	s.Outbox = &schema.OutboxReport{Lanes: map[string]schema.LaneReport{"default": l}}
	return s
}

// TestReportsAreNoStorm: what is reported is written to the disk and sent to the hub,
// so a device that is idle must write nothing, and one that sends, or whose link
// comes and goes, not much (kubeedge#6269).
func TestReportsAreNoStorm(t *testing.T) {
	if n := len(watched(t, 24*time.Hour, func(time.Duration) schema.Surroundings { return linked(true) }, nil)); n > 0 {
		t.Errorf("an idle device reported %d times in a day", n)
	}
	busy := func(at time.Duration) schema.Surroundings {
		n := uint64(at / time.Second)
		return lane(schema.LaneReport{Delivered: n, Pending: n % 7, Bytes: int64(at)})
	}
	if n := len(watched(t, time.Hour, busy, nil)); n < 1 || n > 6 {
		t.Errorf("a device that sends reported %d times in an hour, want each 10 minutes", n)
	}
	flaps := func(at time.Duration) schema.Surroundings { return linked(at/(500*time.Millisecond)%2 == 0) }
	storm := func(r *reporter, _ *listener) {
		for range 3600 {
			time.Sleep(500 * time.Millisecond)
			r.changed()
		}
	}
	if n := len(watched(t, time.Hour, flaps, storm)); n > 1800/5+1 {
		t.Errorf("a link that changed 3600 times in half an hour was reported %d times", n)
	}
}

// TestReportsWhatIsNews: what a person has to know comes soon, and what grows, when it
// has doubled.
func TestReportsWhatIsNews(t *testing.T) {
	cut := func(at time.Duration) schema.Surroundings { return linked(at < time.Minute) }
	reports := watched(t, 61*time.Second, cut, func(r *reporter, _ *listener) { time.Sleep(time.Minute); r.changed() })
	if len(reports) != 1 || reports[0].Hub.Linked || reports[0].Phase != schema.PhaseHealthy {
		t.Errorf("a second after the link was lost: %+v", reports)
	}
	grows := func(at time.Duration) schema.Surroundings {
		return lane(schema.LaneReport{Pending: uint64(at / time.Second)})
	}
	reports = watched(t, 9*time.Minute, grows, nil)
	if n := len(reports); n < 3 || n > 5 { // at 64, 128, 256 and 512 messages
		t.Errorf("a queue that grew to 540 messages was reported %d times", n)
	}
	loses := func(at time.Duration) schema.Surroundings {
		if at < time.Minute {
			return lane(schema.LaneReport{})
		}
		return lane(schema.LaneReport{Lost: map[string]uint64{"ttl": 1}})
	}
	if n := len(watched(t, 2*time.Minute, loses, nil)); n != 1 {
		t.Errorf("a lost message was reported %d times", n)
	}
}

// TestReportIsTriedAgain: the disk was full when the link came back.
func TestReportIsTriedAgain(t *testing.T) {
	back := func(at time.Duration) schema.Surroundings { return linked(at > time.Minute) }
	reports := watched(t, 10*time.Minute, back, func(r *reporter, inner *listener) {
		time.Sleep(59 * time.Second)
		inner.fail(errors.New("no space"))
		time.Sleep(3 * time.Minute)
		inner.fail(nil)
	})
	if n := len(reports); n < 2 || n > 8 || !reports[n-1].Hub.Linked {
		t.Errorf("%d reports, the last %+v", n, reports[max(0, n-1):])
	}
}

// TestSurroundingsOfAnIdleDeviceStandStill looks twice at real ones: nothing in them may
// move by itself.
func TestSurroundingsOfAnIdleDeviceStandStill(t *testing.T) {
	run, err := os.MkdirTemp("/dev/shm", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	config := schema.AgentConfig{Device: "d1", StateDir: t.TempDir(), Outbox: schema.OutboxConfig{MaxBytes: 8 << 20},
		Hub: &schema.HubLink{URL: "nats-leaf://127.0.0.1:1"}}
	l, err := leaf.Open(t.Context(), leaf.Config{Device: "d1", StateDir: config.StateDir, RunDir: run, Listen: "127.0.0.1:0", Hub: config.Hub, MaxStore: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := &post{warn: func(err error) { t.Error(err) }, open: func(ctx context.Context) (*messages, error) {
		return openOutbox(ctx, l, config, func([]byte) {}, func(err error) { t.Error(err) })
	}}
	if err := p.try(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer p.close()
	view := around{config, l, p, &wallClock{synchronized: func() bool { return true }}}
	first := view.look(t.Context(), schema.Report{})
	if first.Hub == nil || first.Hub.Linked || len(first.Outbox.Lanes) != 1 || first.Outbox.Problem != "" || !first.Clock.Trusted {
		t.Errorf("%+v, outbox %+v", first, first.Outbox)
	}
	time.Sleep(1100 * time.Millisecond) // a second passes on any clock
	if second := view.look(t.Context(), schema.Report{}); !reflect.DeepEqual(first, second) {
		t.Errorf("first %+v, %+v\nthen %+v, %+v", first.Hub, first.Outbox, second.Hub, second.Outbox)
	}
}
