package leaf

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// site is a device's directories, which outlive the leafs that are opened on
// them.
type site struct {
	t      testing.TB
	config Config

	mu       sync.Mutex
	warnings []string
}

func newSite(t testing.TB) *site {
	t.Helper()
	run, err := os.MkdirTemp("/dev/shm", "leaf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	s := &site{t: t}
	s.config = Config{
		Device: "d1", StateDir: t.TempDir(), RunDir: run, Listen: "127.0.0.1:0", healEvery: 50 * time.Millisecond, expireEvery: 100 * time.Millisecond,
		Warn: func(err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.warnings = append(s.warnings, err.Error())
		},
	}
	return s
}

func (s *site) warned() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.warnings, "\n")
}

// open opens a leaf that the test closes, at the latest when it ends. The port
// stays the same from then on.
func (s *site) open() *Leaf {
	s.t.Helper()
	l, err := Open(s.t.Context(), s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.config.Listen = strings.TrimPrefix(l.ClientURL(), "nats://")
	s.t.Cleanup(func() { l.Close() })
	return l
}

// declared is a definition of the device d1 with these modules.
func declared(modules ...string) schema.Desired {
	d := schema.Desired{
		Revision: schema.Revision{Commit: "c0ffee"}, Device: "d1",
		Tags: map[string]any{"site": "hannover"},
	}
	for _, m := range modules {
		d.Modules = append(d.Modules, schema.Module{
			Name: m, Twin: schema.TwinSpec{Desired: map[string]any{"interval": 5}},
		})
	}
	return d
}

func (s *site) declare(l *Leaf, d schema.Desired) {
	s.t.Helper()
	if err := l.Declare(s.t.Context(), d); err != nil {
		s.t.Fatal(err)
	}
	for _, m := range d.Modules {
		if _, _, err := l.Identity(s.t.Context(), m.Name, uint32(os.Getuid()), uint32(os.Getgid())); err != nil {
			s.t.Fatal(err)
		}
	}
}

// module connects over TCP as any NATS client of a module would.
func (s *site) module(l *Leaf, name string, more ...nats.Option) *nats.Conn {
	s.t.Helper()
	conn, err := s.dial(l.ClientURL(), name, more...)
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

func (s *site) dial(url, name string, more ...nats.Option) (*nats.Conn, error) {
	key, err := nats.NkeyOptionFromSeed(s.seedFile(name))
	if err != nil {
		return nil, err
	}
	options := append([]nats.Option{
		key, nats.CustomInboxPrefix(twin.Inbox("d1", name)), nats.MaxReconnects(-1),
		nats.ReconnectWait(10 * time.Millisecond), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}, more...)
	conn, err := nats.Connect(url, options...)
	if err != nil {
		return nil, err
	}
	s.t.Cleanup(conn.Close)
	return conn, nil
}

func (s *site) seedFile(module string) string {
	return filepath.Join(s.config.RunDir, "modules", module, "identity.nk")
}

const patience = 30 * time.Second

// eventually polls, for what happens on another goroutine's time.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("after %v not yet: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func report(t testing.TB, conn *nats.Conn, module, patch string) (twin.Answer, error) {
	t.Helper()
	m, err := conn.Request(twin.Prefix("d1", module)+".twin.reported", []byte(patch), patience)
	if err != nil {
		t.Fatal(err)
	}
	return twin.ReadAnswer(m.Data)
}

func get(t testing.TB, conn *nats.Conn, module string) twin.Document {
	t.Helper()
	m, err := conn.Request(twin.Prefix("d1", module)+".twin.get", nil, patience)
	if err != nil {
		t.Fatal(err)
	}
	d, err := twin.ReadDocument(m.Data)
	if err != nil {
		t.Fatal(err, string(m.Data))
	}
	return d
}

func TestModuleReportsAndReadsItsTwin(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	conn := s.module(l, "sensor")
	a, err := report(t, conn, "sensor", `{"temperature": 21.5, "list": [1, null]}`)
	if err != nil || a.Version != 2 {
		t.Fatalf("answer %+v, error %v", a, err)
	}
	if a, err = report(t, conn, "sensor", `{"temperature": 21.5}`); err != nil || a.Version != 2 {
		t.Fatalf("the same again: answer %+v, error %v", a, err)
	}
	d := get(t, conn, "sensor")
	if d.Tags != nil {
		t.Errorf("a module sees tags: %v", d.Tags)
	}
	if p := d.Properties; p.Reported.Values["temperature"] != 21.5 || p.Reported.Version != 2 ||
		p.Desired.Values["interval"] != 5.0 || p.Desired.Version != 1 || p.Desired.Source != "c0ffee" {
		t.Errorf("twin is %+v", p)
	}
}

func TestDesiredIsPublishedOncePerChange(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor", "other"))
	conn := s.module(l, "sensor")
	sub, err := conn.SubscribeSync("devices.d1.modules.sensor.twin.desired")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	next := declared("sensor", "other")
	next.Revision.Commit = "beef"
	s.declare(l, next) // a commit that changes nothing of it
	next.Revision.Commit = "f00d"
	next.Modules[0].Twin.Desired = map[string]any{"interval": 6}
	s.declare(l, next)
	s.declare(l, next)
	m, err := sub.NextMsg(patience)
	if err != nil {
		t.Fatal(err)
	}
	var got twin.Section
	if err := json.Unmarshal(m.Data, &got); err != nil {
		t.Fatal(err)
	}
	if got.Version != 2 || got.Values["interval"] != 6.0 || got.Source != "f00d" {
		t.Errorf("published %s", m.Data)
	}
	get(t, conn, "sensor") // what was published before it would be here by now
	if n, _, _ := sub.Pending(); n != 0 {
		t.Errorf("%d more were published", n)
	}
}

func TestReportedIsCheckedAtTheDoor(t *testing.T) {
	s := newSite(t)
	l := s.open()
	d := declared("sensor")
	d.Modules[0].Twin.Reported = "temperature?: number\ncount?: int & >=0\n"
	s.declare(l, d)
	conn := s.module(l, "sensor")
	if _, err := report(t, conn, "sensor", `{"temperature": 20, "count": 3}`); err != nil {
		t.Fatal(err)
	}
	var e *twin.Error
	if _, err := report(t, conn, "sensor", `{"count": -1}`); !errors.As(err, &e) || e.Code != twin.CodeSchema || e.Path != "count" {
		t.Errorf("error is %v", err)
	}
	if _, err := report(t, conn, "sensor", `{"typo": 1}`); !errors.As(err, &e) || e.Code != twin.CodeSchema || e.Path != "typo" {
		t.Errorf("error is %v", err)
	}
	if got := get(t, conn, "sensor").Properties.Reported; got.Version != 2 || got.Values["count"] != 3.0 || len(got.Values) != 2 {
		t.Errorf("a refused patch changed the twin: %+v", got)
	}
	l.Close()
	l = s.open() // before anything is declared again
	conn = s.module(l, "sensor")
	if _, err := report(t, conn, "sensor", `{"count": -1}`); !errors.As(err, &e) || e.Code != twin.CodeSchema {
		t.Errorf("after a restart the error is %v", err)
	}
}

func TestModulesComeBackAfterRestart(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	back := make(chan struct{}, 8)
	conn := s.module(l, "sensor", nats.IgnoreAuthErrorAbort(), nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	if _, err := report(t, conn, "sensor", `{"a": 1}`); err != nil {
		t.Fatal(err)
	}
	seed, err := os.ReadFile(s.seedFile("sensor"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s.open()
	select {
	case <-back:
	case <-time.After(patience):
		t.Fatal("the module did not reconnect")
	}
	if a, err := report(t, conn, "sensor", `{"a": 2}`); err != nil || a.Version != 3 {
		t.Errorf("answer %+v, error %v", a, err)
	}
	if now, _ := os.ReadFile(s.seedFile("sensor")); string(now) != string(seed) {
		t.Error("the seed changed")
	}
}

func TestRemovedModuleIsShutOutAndKeepsItsVersions(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor", "other"))
	gone := make(chan struct{}, 8)
	conn := s.module(l, "sensor", nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { gone <- struct{}{} }))
	for i := range 5 {
		if _, err := report(t, conn, "sensor", `{"a": `+string(rune('0'+i))+`}`); err != nil {
			t.Fatal(err)
		}
	}
	seed, _ := os.ReadFile(s.seedFile("sensor"))
	s.declare(l, declared("other"))
	select {
	case <-gone:
	case <-time.After(patience):
		t.Fatal("the module of a removed definition is still connected")
	}
	if _, err := os.Stat(filepath.Dir(s.seedFile("sensor"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its identity is still there: %v", err)
	}
	key, err := nkeys.FromSeed([]byte(strings.TrimSpace(string(seed))))
	if err != nil {
		t.Fatal(err)
	}
	public, _ := key.PublicKey()
	if _, err := nats.Connect(l.ClientURL(), nats.Nkey(public, key.Sign)); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("its old seed is still good: %v", err)
	}
	if docs := l.Documents(); len(docs) != 3 || docs[0].Module != "" || docs[1].Module != "other" || !docs[2].Removed || docs[2].Properties.Desired.Version != 2 || docs[2].Properties.Reported.Version != 7 {
		t.Errorf("documents are %+v", docs)
	}
	l.Close()
	l = s.open()
	s.declare(l, declared("sensor", "other"))
	p := get(t, s.module(l, "sensor"), "sensor").Properties
	if p.Desired.Version != 3 || p.Reported.Version != 8 || len(p.Reported.Values) != 0 {
		t.Errorf("declared again its twin is %+v", p)
	}
}

func TestRaise(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	if err := l.Raise(t.Context(), "sensor", 40, 70); err != nil {
		t.Fatal(err)
	}
	if err := l.Raise(t.Context(), "sensor", 10, 20); err != nil {
		t.Fatal(err)
	}
	if err := l.Raise(t.Context(), "later", 5, 6); err != nil {
		t.Fatal(err)
	}
	if err := l.Raise(t.Context(), "sensor", 1<<63, 0); err == nil {
		t.Error("a version that nobody can have reached is taken")
	}
	s.declare(l, declared("later", "sensor"))
	docs := l.Documents()
	for i, want := range [][2]uint64{{1, 1}, {7, 8}, {41, 71}} {
		p := docs[i].Properties
		if got := [2]uint64{p.Desired.Version, p.Reported.Version}; got != want {
			t.Errorf("versions of %q are %v, want %v", docs[i].Module, got, want)
		}
	}
}

func TestReportOfTheDevice(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared())
	<-l.Changed()
	if err := l.Report(t.Context(), schema.Report{Phase: schema.PhaseHealthy}); err != nil {
		t.Fatal(err)
	}
	<-l.Changed()
	if err := l.Report(t.Context(), schema.Report{Phase: schema.PhaseHealthy}); err != nil {
		t.Fatal(err)
	}
	d := l.Documents()[0]
	if r := d.Properties.Reported; r.Version != 2 || r.Values["phase"] != "healthy" {
		t.Errorf("reported is %+v", r)
	}
	select {
	case <-l.Changed():
		t.Error("the same report again is a change")
	default:
	}
}

func TestPersonOnTheDevice(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	err := l.Handle("status", func(_ context.Context, body []byte) ([]byte, error) {
		if string(body) == "bad" {
			return nil, &twin.Error{Code: twin.CodeMalformed, Message: "bad body"}
		}
		return []byte(`{"ok":true}`), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, device, err := Dial(s.config.RunDir)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if device != "d1" {
		t.Errorf("device is %q", device)
	}
	if dir, err := StateDir(s.config.RunDir); err != nil || dir != s.config.StateDir {
		t.Errorf("state directory is %q, %v", dir, err)
	}
	m, err := conn.Request("devices.d1.rpc.status", nil, patience)
	if err != nil || string(m.Data) != `{"ok":true}` {
		t.Errorf("answer %v, error %v", m, err)
	}
	m, err = conn.Request("devices.d1.rpc.status", []byte("bad"), patience)
	if err != nil || string(m.Data) != `{"error":{"code":400,"message":"bad body"}}` {
		t.Errorf("answer %v, error %v", m, err)
	}
	if d := get(t, conn, ""); d.Tags["site"] != "hannover" {
		t.Errorf("the device's twin is %+v", d)
	}
	if d := get(t, conn, "sensor"); d.Module != "sensor" {
		t.Errorf("the module's twin is %+v", d)
	}
	if info, err := os.Stat(filepath.Join(s.config.RunDir, "operator.nk")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("operator's seed: %v, %v", info.Mode(), err)
	}
}
