package leaf

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
	"github.com/tidemark-edge/tidemark/twin/leaf/ledger"
)

// turning is a machine's uptime that a test turns forward.
type turning struct{ extra atomic.Int64 }

func (c *turning) uptime() time.Duration {
	return ledger.KernelClock().Uptime() + time.Duration(c.extra.Load())
}

func (s *site) turning() *turning {
	c := &turning{}
	s.config.clock = ledger.KernelClock()
	s.config.clock.Uptime = c.uptime
	return c
}

// stock is an option for a client that read its seed once, as stock libraries do.
func stock(t *testing.T, seed []byte) nats.Option {
	t.Helper()
	key, err := nkeys.FromSeed([]byte(strings.TrimSpace(string(seed))))
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return nats.Nkey(public, key.Sign)
}

// TestRotateWithoutARestart: what runs goes on, whatever it is written with, and
// the key of before ends when its time is over, also if the agent was restarted
// meanwhile.
func TestRotateWithoutARestart(t *testing.T) {
	s := newSite(t)
	clock := s.turning()
	l := s.open()
	s.declare(l, declared("other", "sensor"))
	seed, err := os.ReadFile(s.seedFile("sensor"))
	if err != nil {
		t.Fatal(err)
	}
	back, closed := make(chan struct{}, 64), make(chan struct{}, 8)
	old, err := nats.Connect(l.ClientURL(), stock(t, seed), nats.CustomInboxPrefix(twin.Inbox("d1", "sensor")), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond),
		nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }), nats.ClosedHandler(func(*nats.Conn) { closed <- struct{}{} }))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	var cuts atomic.Int32
	bystander := s.module(l, "other", nats.DisconnectErrHandler(func(*nats.Conn, error) { cuts.Add(1) }))
	client := s.client(t, l, "sensor")
	before, _ := identity.ModuleKey(s.config.RunDir, "sensor")

	i, err := l.Rotate(t.Context(), "sensor", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if i.PublicKey == before || i.PublicKey == "" || len(i.Old) != 1 || i.Old[0].PublicKey != before || time.Until(i.Old[0].Until) < 59*time.Minute {
		t.Errorf("rotated: %+v, before %s", i, before)
	}
	if now, _ := os.ReadFile(s.seedFile("sensor")); string(now) == string(seed) {
		t.Error("the seed is still the same")
	}
	if info, err := os.Stat(s.seedFile("sensor")); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("seed: %v, %v", info.Mode(), err)
	}
	<-back // a stock client, by the old key
	eventually(t, "both reports arrive", func() bool {
		_, errNew := client.Report(t.Context(), map[string]any{"a": 1})
		m, errOld := old.Request("devices.d1.modules.sensor.twin.get", nil, time.Second)
		return errNew == nil && errOld == nil && len(m.Data) > 0
	})
	keys := func() map[string]int { return l.admission.Connections("sensor") }
	if got := keys(); got[before] != 1 || got[i.PublicKey] != 1 {
		t.Errorf("connections by key: %v", got)
	}
	if cuts.Load() != 0 || !bystander.IsConnected() {
		t.Error("another module's connection ended")
	}

	// The agent restarts; both keys are good still, without a definition.
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = s.open()
	eventually(t, "both are back", func() bool { got := keys(); return got[before] == 1 && got[i.PublicKey] == 1 })
	clock.extra.Store(int64(59 * time.Minute))
	l.admission.Expire()
	if got := keys(); got[before] != 1 {
		t.Errorf("the old key ended early: %v", got)
	}
	clock.extra.Store(int64(61 * time.Minute))
	eventually(t, "the old key ends by itself", func() bool { return keys()[before] == 0 })
	if _, err := nats.Connect(l.ClientURL(), stock(t, seed)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("the old seed is still good: %v", err)
	}
	select {
	case <-closed: // refused twice
	case <-time.After(patience):
		t.Error("the client with the old key was not cut off")
	}
	if _, err := client.Report(t.Context(), map[string]any{"a": 2}); err != nil {
		t.Error(err)
	}
	all, err := l.Identities()
	if err != nil || len(all) != 2 || all[0].Module != "other" || all[1].PublicKey != i.PublicKey || len(all[1].Old) != 0 || all[1].Connections != 1 || all[1].Address != "/devices/d1/modules/sensor" || all[1].Since.IsZero() {
		t.Errorf("identities: %+v, %v", all, err)
	}
}

func TestRotateAtOnceAndOften(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	var seeds [][]byte
	for range identity.MaxOldKeys + 2 {
		seed, err := os.ReadFile(s.seedFile("sensor"))
		if err != nil {
			t.Fatal(err)
		}
		seeds = append(seeds, seed)
		if _, err := l.Rotate(t.Context(), "sensor", time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	good := func() (n int) {
		for _, seed := range seeds {
			if c, err := nats.Connect(l.ClientURL(), stock(t, seed)); err == nil {
				c.Close()
				n++
			}
		}
		return n
	}
	if n := good(); n != identity.MaxOldKeys {
		t.Errorf("%d old keys are good, want %d", n, identity.MaxOldKeys)
	}
	last, _ := os.ReadFile(s.seedFile("sensor"))
	if i, err := l.Rotate(t.Context(), "sensor", 0); err != nil || len(i.Old) != identity.MaxOldKeys-1 {
		t.Errorf("rotated at once: %+v, %v", i, err)
	}
	if _, err := nats.Connect(l.ClientURL(), stock(t, last)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("a leaked seed is still good: %v", err)
	}
	for name, grace := range map[string]time.Duration{"absent": time.Hour, "sensor": -1, "../x": 0, "": 0} {
		if _, err := l.Rotate(t.Context(), name, grace); err == nil {
			t.Errorf("rotated %q with grace %v", name, grace)
		}
	}
	if _, err := l.Rotate(t.Context(), "sensor", MaxGrace+1); err == nil {
		t.Error("any grace is taken")
	}
}

// A rotation that was cut short before the new seed was there leaves the module
// its key, however long ago that was.
func TestRotationThatWasCutShort(t *testing.T) {
	s := newSite(t)
	clock := s.turning()
	l := s.open()
	s.declare(l, declared("sensor"))
	public, err := identity.ModuleKey(s.config.RunDir, "sensor")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.keyring.Retire("sensor", public, clock.uptime(), clock.uptime()+time.Minute); err != nil {
		t.Fatal(err)
	}
	l.Close()
	l = s.open()
	clock.extra.Store(int64(time.Hour))
	l.admission.Expire()
	get(t, s.module(l, "sensor"), "sensor")
}

func TestBrokenKeyringIsSetAside(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	if _, err := l.Rotate(t.Context(), "sensor", time.Hour); err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, content := range []string{"", "{", "[]", `{"sensor":{"old":[{"key":1}]}}`, "\x00\xff"} {
		if err := os.WriteFile(s.config.RunDir+"/identities.json", []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		l = s.open()
		get(t, s.module(l, "sensor"), "sensor")
		l.Close()
		if !strings.Contains(s.warned(), "identities.json") {
			t.Errorf("%q: warned %q", content, s.warned())
		}
	}
}

func allowed(caller string, allow schema.Allow, others ...string) schema.Desired {
	d := declared(append([]string{caller}, others...)...)
	d.Modules[0].Identity.Allow = allow
	return d
}

// TestAllowanceTakesEffectAtOnce: without a restart of the module, and so does
// its end; what the owner does not grant is not given, whatever is declared.
func TestAllowanceTakesEffectAtOnce(t *testing.T) {
	s := newSite(t)
	s.config.Grants = schema.Grants{Publish: []string{"plant.>"}, Subscribe: []string{"plant.*"}}
	l := s.open()
	s.declare(l, declared("line", "camera"))
	c, camera := s.client(t, l, "line"), s.client(t, l, "camera")
	err := camera.OnMethod("snapshot", func(_ context.Context, body []byte) ([]byte, error) { return append([]byte("of "), body...), nil })
	if err != nil {
		t.Fatal(err)
	}
	var e *twin.Error
	refused := func() bool {
		_, err := c.Call(t.Context(), "camera/snapshot", []byte("x"))
		return errors.As(err, &e) && e.Code == twin.CodeRefused
	}
	works := func() bool {
		a, err := c.Call(t.Context(), "camera/snapshot", []byte("x"))
		return err == nil && string(a) == "of x"
	}
	if !refused() {
		t.Fatal("a call that nobody allowed")
	}
	allow := schema.Allow{Call: []string{"camera/snapshot"}, Publish: []string{"plant.speed", "secret.x"}, Subscribe: []string{"plant.speed", "devices.>"}}
	s.declare(l, allowed("line", allow, "camera"))
	eventually(t, "the call is allowed", works)
	sub, err := c.Conn().SubscribeSync("plant.speed")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Conn().Publish("plant.speed", []byte("5")); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsg(patience); err != nil {
		t.Error(err)
	}
	spy, err := l.Connect("spy")
	if err != nil {
		t.Fatal(err)
	}
	defer spy.Close()
	secret, err := spy.SubscribeSync("secret.>")
	if err != nil || spy.Flush() != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Conn().Publish("secret.x", nil), c.Conn().Flush(), spy.Flush()); err != nil {
		t.Fatal(err)
	}
	if n, _, _ := secret.Pending(); n != 0 {
		t.Error("what the owner does not grant was published")
	}

	// The agent restarts, and goes by what was allowed before any definition is read.
	l.Close()
	l = s.open()
	eventually(t, "the call is allowed after a restart", works)
	cuts := len(l.admission.Connections("line"))
	s.declare(l, allowed("line", allow, "camera")) // the same again
	if !works() || cuts != 1 {
		t.Error("the same again cut the connection")
	}
	s.declare(l, allowed("line", schema.Allow{Call: []string{"camera/*"}}, "camera"))
	eventually(t, "all its methods are allowed", works)
	s.declare(l, declared("line", "camera"))
	eventually(t, "the call is allowed no more", refused)
}
