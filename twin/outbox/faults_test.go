package outbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/twin"
)

// fill stores count messages of size bytes, and returns when all are on disk.
func fill(t *testing.T, n *node, from, count, size int) {
	t.Helper()
	var bodies []string
	for i := range count {
		bodies = append(bodies, fmt.Sprintf("%d %s", from+i, strings.Repeat("x", size)))
	}
	sayAll(t, module(n, "sensor"), "sensor", bodies)
}

// TestBoundDropsOldestAndTellsTheHub fills the outbox beyond its bound while
// the hub cannot be reached: the oldest go, and the hub gets to know which.
func TestBoundDropsOldestAndTellsTheHub(t *testing.T) {
	n := newNode(t)
	o := open(t, n.connect(), n.connect(), Config{MaxBytes: 4 << 20})
	fill(t, n, 1, 600, 16<<10) // 9.6 MB into 4 MiB
	if s, err := o.Stats(testContext(t)); err != nil || s.Bytes > 4<<20 || s.Pending != 600 {
		t.Fatalf("stats %+v, %v", s, err)
	}
	up := newUpstream(t, n)
	o.Kick()
	drained(t, o)
	checkBound(t, o, up, 600)
}

// TestBoundAcrossRestart drops while nobody forwards, and has the next run
// account for it.
func TestBoundAcrossRestart(t *testing.T) {
	n := newNode(t)
	o := open(t, n.connect(), nil, Config{MaxBytes: 4 << 20})
	fill(t, n, 1, 600, 16<<10)
	o.Close()
	n.stop()
	n.start()
	up := newUpstream(t, n)
	o = open(t, n.connect(), n.connect(), Config{MaxBytes: 4 << 20})
	drained(t, o)
	checkBound(t, o, up, 600)
}

func checkBound(t *testing.T, o *Outbox, up *upstream, total int) {
	t.Helper()
	bodies, dropped := up.covered()
	lost := uint64(0)
	for _, d := range dropped {
		if d.Reason != twin.DroppedBound {
			t.Errorf("dropped %+v", d)
		}
		lost += d.To - d.From + 1
	}
	if lost == 0 || int(lost)+len(bodies) != total {
		t.Fatalf("%d messages arrived, %d are accounted for, of %d: %v", len(bodies), lost, total, dropped)
	}
	if !strings.HasPrefix(bodies[len(bodies)-1], fmt.Sprintf("%d ", total)) {
		t.Errorf("the newest did not arrive, but %.10q", bodies[len(bodies)-1])
	}
	if s, err := o.Stats(testContext(t)); err != nil || s.Lost[twin.DroppedBound] != lost || !slices.Equal(s.Dropped, dropped) {
		t.Errorf("stats %+v, %v: %d lost", s, err, lost)
	}
}

// TestTimeToLiveNeedsNoWallClock ages messages by the clock since boot alone.
func TestTimeToLiveNeedsNoWallClock(t *testing.T) {
	now := 100 * time.Hour
	c := clock{boot: "b", up: func() time.Duration { return now }}
	for _, tt := range []struct {
		name string
		s    stamp
		want time.Duration
	}{
		{"same boot", stamp{"b", 99 * time.Hour}, time.Hour},
		{"earlier boot: at least as old as this boot", stamp{"a", 999 * time.Hour}, 100 * time.Hour},
		{"nonsense is kept", stamp{"b", 200 * time.Hour}, -100 * time.Hour},
	} {
		if got := c.age(tt.s); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestExpiredIsToldNotSent lets messages wait longer than their time to live.
func TestExpiredIsToldNotSent(t *testing.T) {
	n := newNode(t)
	o := open(t, n.connect(), n.connect(), Config{TTL: time.Millisecond})
	nc := module(n, "sensor")
	for range 5 {
		say(t, nc, "sensor", "n", "old")
	}
	time.Sleep(20 * time.Millisecond) // older than the time to live; longer does no harm
	up := newUpstream(t, n)
	o.Kick()
	drained(t, o)
	bodies, dropped := up.covered()
	if want := []twin.Dropped{{Epoch: o.state.epoch, From: 1, To: 5, Reason: twin.DroppedTTL}}; len(bodies) != 0 || !slices.Equal(dropped, want) {
		t.Errorf("bodies %v, dropped %v", bodies, dropped)
	}
}

// TestRestartGoesOn restarts outbox and server at every stage of a stream of
// messages; nothing is lost, nothing arrives twice.
func TestRestartGoesOn(t *testing.T) {
	n := newNode(t)
	o := open(t, n.connect(), nil, Config{})
	sayAll(t, module(n, "sensor"), "sensor", numbers(1, 700))
	epoch := o.state.epoch
	o.Close()
	hub := newNode(t)
	up := newUpstream(t, hub)
	for i := range 5 {
		o = open(t, n.connect(), hub.connect(), Config{})
		sayAll(t, module(n, "sensor"), "sensor", numbers(701+i*100, 800+i*100))
		o.Close() // anywhere in the middle of forwarding
		if i%2 == 0 {
			n.stop()
			n.start()
		}
	}
	o = open(t, n.connect(), hub.connect(), Config{})
	say(t, module(n, "sensor"), "sensor", "n", "1201")
	drained(t, o)
	if bodies, dropped := up.covered(); !slices.Equal(bodies, numbers(1, 1201)) || len(dropped) != 0 {
		t.Errorf("%d bodies, dropped %v", len(bodies), dropped)
	}
	if o.state.epoch != epoch {
		t.Error("the epoch changed")
	}
}

// TestWipedOutboxHasNewEpoch loses the device's disk: sequences start over, and
// the hub does not take the new messages for old ones.
func TestWipedOutboxHasNewEpoch(t *testing.T) {
	hub := newNode(t)
	up := newUpstream(t, hub)
	var epochs []string
	for i := range 2 {
		n := newNode(t)
		o := open(t, n.connect(), hub.connect(), Config{})
		sayAll(t, module(n, "sensor"), "sensor", numbers(1+i*10, 10+i*10))
		drained(t, o)
		epochs = append(epochs, o.state.epoch)
		o.Close()
	}
	if bodies, _ := up.covered(); !slices.Equal(bodies, numbers(1, 20)) || epochs[0] == epochs[1] {
		t.Errorf("bodies %v, epochs %v", bodies, epochs)
	}
}

// TestOutboxThatWentBack has a hub that holds more than the disk remembers:
// what comes now must not be taken for what the hub has.
func TestOutboxThatWentBack(t *testing.T) {
	n := newNode(t)
	up := newUpstream(t, n)
	o := open(t, n.connect(), nil, Config{})
	up.answer = func(r twin.Resume) twin.Resume {
		if r.Epoch == "" {
			return twin.Resume{Epoch: o.state.epoch, Seq: 500}
		}
		return r
	}
	before := o.state.epoch
	sayAll(t, module(n, "sensor"), "sensor", numbers(1, 10))
	o.Close()
	warned := make(chan error, 10)
	o = open(t, n.connect(), n.connect(), Config{Warn: func(err error) { warned <- err }})
	drained(t, o)
	if err := <-warned; !errors.Is(err, errBehind) {
		t.Error(err)
	}
	if bodies, _ := up.covered(); !slices.Equal(bodies, numbers(1, 10)) || o.state.stats().Epoch == before {
		t.Errorf("bodies %v, epoch %s", bodies, o.state.epoch)
	}
	again := open(t, n.connect(), nil, Config{})
	if again.state.epoch != o.state.stats().Epoch {
		t.Error("the new epoch is not on disk")
	}
}

// TestDamagedRecordIsTold puts into the stream what the outbox never wrote.
func TestDamagedRecordIsTold(t *testing.T) {
	n := newNode(t)
	up := newUpstream(t, n)
	local := n.connect()
	first := open(t, local, nil, Config{})
	nc := module(n, "sensor")
	say(t, nc, "sensor", "n", "1")
	for _, m := range []*nats.Msg{
		{Subject: "outbox.sensor.n"},
		{Subject: "outbox.sensor"},
		{Subject: "outbox.a.b.c", Header: nats.Header{headerUp: {"1"}}},
		{Subject: "outbox.sensor.n", Header: nats.Header{headerUp: {"-1"}}},
	} {
		if _, err := local.RequestMsg(m, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	say(t, nc, "sensor", "n", "6")
	first.Close()
	o := open(t, local, n.connect(), Config{})
	drained(t, o)
	bodies, dropped := up.covered()
	if want := []twin.Dropped{{Epoch: o.state.epoch, From: 2, To: 5, Reason: twin.DroppedDamaged}}; !slices.Equal(bodies, []string{"1", "6"}) || !slices.Equal(dropped, want) {
		t.Errorf("bodies %v, dropped %v", bodies, dropped)
	}
}

// TestHubStreamWiped: the hub lost everything. The device goes on with what the
// hub had not acknowledged; it has nothing else to give.
func TestHubStreamWiped(t *testing.T) {
	n := newNode(t)
	up := newUpstream(t, n)
	o := open(t, n.connect(), n.connect(), Config{})
	nc := module(n, "sensor")
	sayAll(t, nc, "sensor", numbers(1, 50))
	drained(t, o)
	if err := up.stream.Purge(testContext(t)); err != nil {
		t.Fatal(err)
	}
	sayAll(t, nc, "sensor", numbers(51, 100))
	drained(t, o)
	if bodies, dropped := up.covered(); !slices.Equal(bodies, numbers(51, 100)) || len(dropped) != 0 {
		t.Errorf("bodies %v, dropped %v", bodies, dropped)
	}
}

// TestLateDuplicateIsRefused replays what was sent, as a network may that
// delivers late: the hub's condition does not hold any more.
func TestLateDuplicateIsRefused(t *testing.T) {
	n := newNode(t)
	up := newUpstream(t, n)
	spy, err := up.nc.SubscribeSync("up." + device + ".out.>")
	if err != nil {
		t.Fatal(err)
	}
	o := open(t, n.connect(), n.connect(), Config{})
	nc := module(n, "sensor")
	sayAll(t, nc, "sensor", numbers(1, 100))
	say(t, nc, "sensor", "n", "101")
	drained(t, o)
	replay := n.connect()
	held := len(up.held())
	for range 101 {
		m, err := spy.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if err := replay.PublishMsg(&nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}); err != nil {
			t.Fatal(err)
		}
	}
	say(t, nc, "sensor", "n", "102") // behind them all
	drained(t, o)
	if bodies, _ := up.covered(); held != 101 || !slices.Equal(bodies, numbers(1, 102)) {
		t.Errorf("bodies %v", bodies)
	}
}

// TestADamagedConsumerIsReplaced: a bit that flips in the file in which JetStream
// keeps how far the forwarder is must not end forwarding for good.
func TestADamagedConsumerIsReplaced(t *testing.T) {
	n := newNode(t)
	up := newUpstream(t, n)
	o := open(t, n.connect(), n.connect(), Config{})
	fill(t, n, 1, 40, 16)
	drained(t, o)
	o.Close()
	for round := range 2 { // the one that takes its place may be damaged too
		n.stop()
		files, err := filepath.Glob(filepath.Join(n.dir, "*", "*", "streams", streamName, "obs", "*", "o.dat"))
		if err != nil || len(files) != round+1 {
			t.Fatalf("%d consumers on the disk, %v", len(files), err)
		}
		for _, file := range files {
			if err := os.WriteFile(file, []byte("damaged"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		n.start()
		up.nc = n.connect()
		if _, err := up.nc.Subscribe("up.*.resume", up.resume); err != nil {
			t.Fatal(err)
		}
		js, err := jetstream.New(up.nc)
		if err != nil {
			t.Fatal(err)
		}
		if up.stream, err = js.Stream(testContext(t), "UP"); err != nil {
			t.Fatal(err)
		}
		o := open(t, n.connect(), n.connect(), Config{})
		fill(t, n, 41+40*round, 40, 16)
		drained(t, o)
		o.Close()
	}
	bodies, dropped := up.covered()
	if len(bodies) != 120 || len(dropped) != 0 {
		t.Errorf("%d messages at the hub, and %d notes of dropped ones", len(bodies), len(dropped))
	}
}
