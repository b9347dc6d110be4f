package leaf

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/ledger"
)

// machine is a clock whose time passes when the test says so, and whose boots
// are told apart.
type machine struct {
	boot   string
	uptime atomic.Int64
}

func (m *machine) clock() ledger.Clock {
	return ledger.Clock{Boot: m.boot, Uptime: func() time.Duration { return time.Duration(m.uptime.Load()) }}
}

func (m *machine) pass(d time.Duration) { m.uptime.Add(int64(d)) }

func (m *machine) reboot(name string) ledger.Clock {
	m.boot = name
	m.uptime.Store(0)
	return m.clock()
}

// diary keeps what became of overrides.
type diary struct {
	mu     sync.Mutex
	events []string
}

func (s *site) diary() *diary {
	d := &diary{}
	s.config.Noted = func(e OverrideEvent) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.events = append(d.events, strings.TrimSpace(e.What+" "+e.Module+" "+e.By))
	}
	return d
}

func (d *diary) says(t *testing.T, want ...string) {
	t.Helper()
	seen := func() []string { d.mu.Lock(); defer d.mu.Unlock(); return slices.Clone(d.events) }
	eventually(t, "as many events as "+strings.Join(want, ", "), func() bool { return len(seen()) >= len(want) })
	if got := seen(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
}

func by(who string, patch map[string]any) twin.Override {
	return twin.Override{Patch: patch, By: who, Reason: "tests"}
}

func desiredOf(l *Leaf, module string) twin.Section {
	e, _ := l.ledger.Get(module)
	return e.Document.Properties.Desired
}

// TestIoTEdge645ChangeTheTwinWhileOffline: what users of today's systems miss
// most. There is no hub; a person changes desired of a module on the device, the
// module gets it every way there is, it outlives the agent, stays over what a
// commit changes below it, and leads back to Git.
func TestIoTEdge645ChangeTheTwinWhileOffline(t *testing.T) {
	s := newSite(t)
	diary := s.diary()
	l := s.open()
	d := declared("sensor")
	d.Modules[0].Twin.Desired = map[string]any{"interval": 5, "mode": "eco", "deep": map[string]any{"a": 1}}
	s.declare(l, d)
	conn := s.module(l, "sensor")
	sub, err := conn.SubscribeSync("devices.d1.modules.sensor.twin.desired")
	if err != nil || conn.Flush() != nil {
		t.Fatal(err)
	}
	if replaced, err := l.Override(t.Context(), "sensor", by("ann", map[string]any{"interval": 7, "mode": nil, "deep": map[string]any{"b": 2}}), 8*time.Hour); err != nil || replaced != nil {
		t.Fatal(replaced, err)
	}
	m, err := sub.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	var got twin.Section
	if err := json.Unmarshal(m.Data, &got); err != nil {
		t.Fatal(err)
	}
	deep, _ := got.Values["deep"].(map[string]any)
	if got.Version != 2 || got.Values["interval"] != 7.0 || got.Values["mode"] != nil || deep["a"] != 1.0 || deep["b"] != 2.0 || got.Source != "c0ffee" {
		t.Errorf("published %s", m.Data)
	}
	if o := got.Override; o == nil || o.By != "ann" || o.Reason != "tests" || o.Until.Sub(o.At) != 8*time.Hour {
		t.Errorf("override is %+v", o)
	}
	if now := get(t, conn, "sensor").Properties.Desired; now.Version != 2 || now.Override == nil {
		t.Errorf("twin says %+v", now)
	}
	if file, err := os.ReadFile(s.desiredFile("sensor")); err != nil || !bytes.Equal(file, m.Data) {
		t.Errorf("file %s, %v", file, err)
	}
	if o := l.Overrides(); len(o) != 1 || o[0].Module != "sensor" || o[0].Left <= 7*time.Hour || o[0].Left > 8*time.Hour {
		t.Errorf("in force: %+v", o)
	}

	l.Close()
	l = s.open()
	if now := desiredOf(l, "sensor"); now.Version != 2 || now.Values["interval"] != 7.0 {
		t.Errorf("after a restart %+v", now)
	}
	d.Revision.Commit = "beef"
	d.Modules[0].Twin.Desired = map[string]any{"interval": 6, "fresh": true}
	s.declare(l, d)
	now := desiredOf(l, "sensor")
	if now.Version != 3 || now.Values["interval"] != 7.0 || now.Values["fresh"] != true || now.Source != "beef" || now.Override == nil {
		t.Errorf("over another commit %+v", now)
	}
	d.Revision.Commit = "f00d"
	d.Modules[0].Twin.Desired = map[string]any{"interval": 9, "fresh": true} // hidden by the override
	s.declare(l, d)
	if now := desiredOf(l, "sensor"); now.Version != 3 {
		t.Errorf("a change that nobody sees made version %d", now.Version)
	}
	l.Close()
	l = s.open()
	ended, err := l.Clear(t.Context(), "sensor", "bob")
	if err != nil || ended.By != "ann" {
		t.Errorf("ended %+v, %v", ended, err)
	}
	if now := desiredOf(l, "sensor"); now.Version != 4 || now.Values["interval"] != 9.0 || now.Values["deep"] != nil || now.Override != nil || len(l.Overrides()) != 0 {
		t.Errorf("back at Git's: %+v", now)
	}
	diary.says(t, "set sensor ann", "cleared sensor bob")
}

func TestOverrideOfTheDevice(t *testing.T) {
	s := newSite(t)
	l := s.open()
	d := declared("sensor")
	d.Twin.Desired = map[string]any{"zone": "a"}
	s.declare(l, d)
	if _, err := l.Override(t.Context(), "", by("ann", map[string]any{"zone": "b"}), 0); err != nil {
		t.Fatal(err)
	}
	if now := desiredOf(l, ""); now.Version != 2 || now.Values["zone"] != "b" || !now.Override.Until.IsZero() {
		t.Errorf("%+v", now)
	}
	if o := l.Overrides(); len(o) != 1 || o[0].Module != "" || o[0].Left != 0 {
		t.Errorf("in force: %+v", o)
	}
}

func TestOverrideIsRefused(t *testing.T) {
	s := newSite(t)
	l := s.open()
	d := declared("sensor", "fixed")
	d.Modules[1].Twin.Fixed = true
	s.declare(l, d)
	deep := map[string]any{"x": 1}
	for range twin.MaxDepth + 1 {
		deep = map[string]any{"x": deep}
	}
	for name, c := range map[string]struct {
		module string
		o      twin.Override
		lasts  time.Duration
		code   int
		path   string
	}{
		"where the definition forbids it": {"fixed", by("ann", map[string]any{"interval": 6}), time.Hour, twin.CodeRefused, ""},
		"a module that is not declared":   {"nobody", by("ann", map[string]any{"interval": 6}), time.Hour, twin.CodeNotFound, ""},
		"a name that is none":             {"../x", by("ann", map[string]any{"interval": 6}), time.Hour, twin.CodeNotFound, ""},
		"a key of ours":                   {"sensor", by("ann", map[string]any{"$version": 6}), time.Hour, twin.CodeMalformed, "patch.$version"},
		"a key with a dot":                {"sensor", by("ann", map[string]any{"a.b": 6}), time.Hour, twin.CodeMalformed, "patch.a.b"},
		"too large":                       {"sensor", by("ann", map[string]any{"a": strings.Repeat("x", twin.MaxSection)}), time.Hour, twin.CodeTooLarge, "patch"},
		"too large with what is there":    {"sensor", by("ann", map[string]any{"a": strings.Repeat("x", twin.MaxSection-10)}), time.Hour, twin.CodeTooLarge, ""},
		"too deep":                        {"sensor", by("ann", deep), time.Hour, twin.CodeTooLarge, "*"},
		"what Git says":                   {"sensor", by("ann", map[string]any{"interval": 5, "none": nil}), time.Hour, twin.CodeMalformed, "patch"},
		"nothing":                         {"sensor", by("ann", nil), time.Hour, twin.CodeMalformed, "patch"},
		"nobody":                          {"sensor", by("", map[string]any{"interval": 6}), time.Hour, twin.CodeMalformed, "by"},
		"time that went":                  {"sensor", by("ann", map[string]any{"interval": 6}), -1, twin.CodeMalformed, "for"},
		"time without end":                {"sensor", by("ann", map[string]any{"interval": 6}), 1 << 62, twin.CodeMalformed, "for"},
	} {
		_, err := l.Override(t.Context(), c.module, c.o, c.lasts)
		var e *twin.Error
		if !errors.As(err, &e) || e.Code != c.code || c.path != "*" && e.Path != c.path {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.Clear(t.Context(), "sensor", "ann"); err == nil {
		t.Error("an override that is none was ended")
	}
	for _, module := range []string{"sensor", "fixed"} {
		if now := desiredOf(l, module); now.Version != 1 || now.Override != nil {
			t.Errorf("a refused override changed %s: %+v", module, now)
		}
	}
}

// An override ends where Git has caught up with it, forbids it or leaves no room
// for it, and with its module.
func TestOverrideEnds(t *testing.T) {
	s := newSite(t)
	diary := s.diary()
	l := s.open()
	modules := []string{"adopted", "forbidden", "removed", "replaced", "unfit"}
	d := declared(modules...)
	s.declare(l, d)
	for _, m := range modules {
		patch := map[string]any{"interval": 6, "fill": strings.Repeat("x", 1000)}
		if m == "adopted" {
			delete(patch, "fill")
		}
		if _, err := l.Override(t.Context(), m, by("ann", patch), 0); err != nil {
			t.Fatal(err)
		}
	}
	replaced, err := l.Override(t.Context(), "replaced", by("bob", map[string]any{"mode": "x"}), time.Hour)
	if err != nil || replaced == nil || replaced.By != "ann" {
		t.Errorf("replaced %+v, %v", replaced, err)
	}
	if now := desiredOf(l, "replaced"); now.Values["interval"] != 5.0 || now.Values["mode"] != "x" {
		t.Errorf("replaced: %+v", now.Values)
	}
	next := declared("adopted", "forbidden", "replaced", "unfit")
	next.Modules[0].Twin.Desired = map[string]any{"interval": 6}
	next.Modules[1].Twin.Fixed = true
	next.Modules[3].Twin.Desired = map[string]any{"interval": 5, "large": strings.Repeat("x", twin.MaxSection-500)}
	s.declare(l, next)
	for m, interval := range map[string]float64{"adopted": 6, "forbidden": 5, "unfit": 5} {
		if now := desiredOf(l, m); now.Override != nil || now.Values["interval"] != interval || now.Version != 3 {
			t.Errorf("%s: %v at version %d, %+v", m, now.Values["interval"], now.Version, now.Override)
		}
	}
	s.declare(l, declared("adopted", "forbidden", "removed", "replaced", "unfit"))
	if now := desiredOf(l, "removed"); now.Override != nil || now.Values["interval"] != 5.0 || now.Version != 4 {
		t.Errorf("removed and named again: %+v", now)
	}
	diary.says(t, "set adopted ann", "set forbidden ann", "set removed ann", "set replaced ann", "set unfit ann",
		"replaced replaced bob", "set replaced bob", "adopted adopted", "forbidden forbidden", "unfit unfit", "removed removed")
}

// What ends an override is the time in which the machine is on: no wall clock,
// and no number of starts.
func TestOverrideExpiresByTimeThatPasses(t *testing.T) {
	s := newSite(t)
	m := &machine{boot: "first"}
	m.pass(24 * time.Hour)
	s.config.clock = m.clock()
	diary := s.diary()
	l := s.open()
	s.declare(l, declared("sensor"))
	if _, err := l.Override(t.Context(), "sensor", by("ann", map[string]any{"interval": 6}), 8*time.Hour); err != nil {
		t.Fatal(err)
	}
	left := func(want time.Duration) {
		t.Helper()
		l.expire()
		if o := l.Overrides(); len(o) != 1 || o[0].Left != want {
			t.Fatalf("left %+v, want %v", o, want)
		}
	}
	left(8 * time.Hour)
	m.pass(time.Hour)
	left(7 * time.Hour)
	for range 5 { // starts of the agent cost nothing
		l.Close()
		m.pass(time.Minute)
		l = s.open()
		left(desiredLeft(l, m))
	}
	left(6*time.Hour + 55*time.Minute)
	m.pass(30 * time.Second) // and then the power goes, before that is written down
	l.Close()
	s.config.clock = m.reboot("second")
	m.pass(2 * time.Minute) // until the agent starts
	l = s.open()
	left(6*time.Hour + 51*time.Minute) // two minutes were charged in advance, and 30 s of them used
	for _, boot := range []string{"third", "fourth"} {
		l.Close()
		s.config.clock = m.reboot(boot)
		l = s.open()
	}
	left(6*time.Hour + 47*time.Minute)
	// Whatever the wall clock says now, it is not what counts.
	e, _ := l.ledger.Get("sensor")
	o := *e.Override()
	o.Until = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, _, err := l.ledger.Override("sensor", o, e.Countdown, time.Now()); err != nil {
		t.Fatal(err)
	}
	m.pass(6*time.Hour + 46*time.Minute)
	left(time.Minute)
	m.pass(time.Minute)
	l.expire()
	if now := desiredOf(l, "sensor"); now.Override != nil || now.Values["interval"] != 5.0 {
		t.Errorf("%+v", now)
	}
	diary.says(t, "set sensor ann", "expired sensor")
}

func desiredLeft(l *Leaf, m *machine) time.Duration {
	e, _ := l.ledger.Get("sensor")
	return e.Countdown.Due - time.Duration(m.uptime.Load())
}

// An override ends by itself, and one that ended while the machine was off, or
// with no agent, ends when the agent starts.
func TestOverrideEndsByItself(t *testing.T) {
	s := newSite(t)
	diary := s.diary()
	l := s.open()
	s.declare(l, declared("now", "away"))
	conn := s.module(l, "now")
	sub, err := conn.SubscribeSync("devices.d1.modules.now.twin.desired")
	if err != nil || conn.Flush() != nil {
		t.Fatal(err)
	}
	if _, err := l.Override(t.Context(), "now", by("ann", map[string]any{"interval": 6}), 50*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for version, interval := range []float64{2: 6, 3: 5} {
		if interval == 0 {
			continue
		}
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		var got twin.Section
		if err := json.Unmarshal(m.Data, &got); err != nil || got.Version != uint64(version) || got.Values["interval"] != interval {
			t.Errorf("published %s, %v", m.Data, err)
		}
	}
	if _, err := l.Override(t.Context(), "away", by("ann", map[string]any{"interval": 6}), time.Hour); err != nil {
		t.Fatal(err)
	}
	diary.says(t, "set now ann", "expired now", "set away ann")
	l.Close()
	later := ledger.KernelClock()
	passed := later.Uptime
	later.Uptime = func() time.Duration { return passed() + time.Hour }
	s.config.clock = later
	l = s.open()
	eventually(t, "it has ended", func() bool { return desiredOf(l, "away").Override == nil })
	diary.says(t, "set now ann", "expired now", "set away ann", "expired away")
}

// Several things at once leave desired in one order, the same for all who look.
func TestOverridesAtTheSameTime(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	conn := s.module(l, "sensor")
	sub, err := conn.SubscribeSync("devices.d1.modules.sensor.twin.desired")
	if err != nil || conn.Flush() != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for worker := range 4 {
		wait.Go(func() {
			for i := range 20 {
				switch worker {
				case 0:
					_, _ = l.Clear(t.Context(), "sensor", "bob")
				case 1:
					d := declared("sensor")
					d.Modules[0].Twin.Desired = map[string]any{"interval": i}
					if err := l.Declare(t.Context(), d); err != nil {
						t.Error(err)
					}
				default:
					if _, err := l.Override(t.Context(), "sensor", by("ann", map[string]any{"worker": worker, "i": i}), time.Duration(worker-1)*time.Millisecond); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wait.Wait()
	eventually(t, "all have ended", func() bool { return len(l.Overrides()) == 0 })
	last := desiredOf(l, "sensor").Version
	for want := uint64(2); want <= last; want++ {
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		var got twin.Section
		if err := json.Unmarshal(m.Data, &got); err != nil || got.Version != want {
			t.Fatalf("version %d came for %d, %v", got.Version, want, err)
		}
	}
}

func (s *site) desiredFile(module string) string {
	return filepath.Join(s.config.RunDir, "modules", module, "desired.json")
}
