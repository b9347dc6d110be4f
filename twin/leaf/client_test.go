package leaf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

// environment is that of a module on the device's own network.
func (s *site) environment(t *testing.T, l *Leaf, module string) {
	t.Helper()
	t.Setenv(twin.EnvURL, l.ClientURL())
	t.Setenv(twin.EnvIdentity, "/devices/d1/modules/"+module)
	t.Setenv(twin.EnvCreds, s.seedFile(module))
}

func (s *site) client(t *testing.T, l *Leaf, module string) *twin.Client {
	t.Helper()
	s.environment(t, l, module)
	c, err := twin.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestClientReportsAndGets(t *testing.T) {
	s := newSite(t)
	l := s.open()
	d := declared("sensor")
	d.Modules[0].Twin.Reported = "temperature?: number\n"
	s.declare(l, d)
	c := s.client(t, l, "sensor")
	if c.Device != "d1" || c.Module != "sensor" {
		t.Errorf("client of %s on %s", c.Module, c.Device)
	}
	if v, err := c.Report(t.Context(), map[string]any{"temperature": 21}); err != nil || v != 2 {
		t.Errorf("version %d, %v", v, err)
	}
	var e *twin.Error
	if _, err := c.Report(t.Context(), map[string]any{"temperature": "hot"}); !errors.As(err, &e) || e.Code != twin.CodeSchema || e.Path != "temperature" {
		t.Errorf("against the schema: %v", err)
	}
	if _, err := c.Report(t.Context(), map[string]any{"a.b": 1}); !errors.As(err, &e) || e.Code != twin.CodeMalformed {
		t.Errorf("a bad key: %v", err)
	}
	if _, err := c.Report(t.Context(), map[string]any{"a": strings.Repeat("x", twin.MaxPatch)}); !errors.As(err, &e) || e.Code != twin.CodeTooLarge {
		t.Errorf("too large: %v", err)
	}
	got, err := c.Get(t.Context())
	if err != nil || got.Properties.Reported.Values["temperature"] != 21.0 || got.Properties.Desired.Values["interval"] != 5.0 {
		t.Errorf("twin is %+v, %v", got, err)
	}
}

// What was desired while the agent was away arrives when it is back, which is
// what users of other systems miss most (iotedge#7148, #2757).
func TestDesiredChangedWhileAway(t *testing.T) {
	s := newSite(t)
	l := s.open()
	d := declared("sensor")
	s.declare(l, d)
	c := s.client(t, l, "sensor")
	seen := make(chan twin.Section, 16)
	if err := c.OnDesired(func(s twin.Section) { seen <- s }); err != nil {
		t.Fatal(err)
	}
	want := func(version uint64, interval float64) {
		t.Helper()
		select {
		case s := <-seen:
			if s.Version != version || s.Values["interval"] != interval {
				t.Errorf("told of %+v, want version %d and interval %v", s, version, interval)
			}
		case <-time.After(patience):
			t.Fatalf("not told of version %d", version)
		}
	}
	change := func(interval int) {
		t.Helper()
		d.Modules[0].Twin.Desired = map[string]any{"interval": interval}
		if err := l.Declare(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	want(1, 5)
	change(6)
	want(2, 6)
	l.Close()
	// Another agent that the module cannot reach yet takes the change.
	listen := s.config.Listen
	s.config.Listen = "127.0.0.1:0"
	l = s.open()
	change(7)
	change(8)
	l.Close()
	s.config.Listen = listen
	l = s.open()
	want(3+1, 8)
	change(9)
	want(5, 9)
	c.Close()
	if len(seen) != 0 {
		t.Errorf("told more: %+v", <-seen)
	}
}

// A report waits for an agent that is away, and needs no new connection.
func TestReportOverARestart(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	c := s.client(t, l, "sensor")
	l.Close()
	type result struct {
		version uint64
		err     error
	}
	done := make(chan result, 1)
	go func() {
		v, err := c.Report(t.Context(), map[string]any{"a": 1})
		done <- result{v, err}
	}()
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Get(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the agent is away: %v", err)
	}
	s.open()
	if r := <-done; r.err != nil || r.version != 2 {
		t.Errorf("version %d, %v", r.version, r.err)
	}
}

// TestEveryModuleOfAFullDeviceConnects has as many modules as a device may have,
// with two connections each, and then the agent needs one more.
func TestEveryModuleOfAFullDeviceConnects(t *testing.T) {
	s := newSite(t)
	l := s.open()
	var names []string
	for i := range 500 {
		names = append(names, fmt.Sprintf("m%d", i))
	}
	s.declare(l, declared(names...))
	todo := make(chan string, len(names))
	for _, name := range names {
		todo <- name
	}
	close(todo)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for name := range todo {
				_, err := s.dial(l.ClientURL(), name)
				conn, again := s.dial(l.ClientURL(), name)
				if err = errors.Join(err, again); err == nil {
					_, err = conn.Request(twin.Prefix("d1", name)+".twin.get", nil, patience)
				}
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wait.Wait()
	conn, err := l.Connect("one more")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestClientSends(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	c := s.client(t, l, "sensor")
	conn, err := l.Connect("intake")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var stored atomic.Int32
	_, err = conn.Subscribe("devices.d1.modules.sensor.out.*", func(m *nats.Msg) {
		if string(m.Data) == "full" {
			_ = m.Respond([]byte(`{"error":{"code":507,"message":"the queue is full"}}`))
			return
		}
		stored.Add(1)
		_ = m.Respond([]byte(`{}`))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Send(t.Context(), "alarm", []byte("hello")); err != nil || stored.Load() != 1 {
		t.Errorf("sent: %v, stored %d", err, stored.Load())
	}
	var e *twin.Error
	if err := c.Send(t.Context(), "alarm", []byte("full")); !errors.As(err, &e) || e.Code != twin.CodeNoSpace {
		t.Errorf("refused: %v", err)
	}
}

func TestConnectFromAWrongEnvironment(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	for name, set := range map[string]func(t *testing.T){
		"no identity":  func(t *testing.T) { t.Setenv(twin.EnvIdentity, "") },
		"no device":    func(t *testing.T) { t.Setenv(twin.EnvIdentity, "/devices/") },
		"a subject":    func(t *testing.T) { t.Setenv(twin.EnvIdentity, "/devices/d1/modules/a.b") },
		"a wildcard":   func(t *testing.T) { t.Setenv(twin.EnvIdentity, "/devices/*") },
		"two modules":  func(t *testing.T) { t.Setenv(twin.EnvIdentity, "/devices/d1/modules/a/modules/b") },
		"no module":    func(t *testing.T) { t.Setenv(twin.EnvIdentity, "/devices/d1/modules/") },
		"no url":       func(t *testing.T) { t.Setenv(twin.EnvURL, "") },
		"bad url":      func(t *testing.T) { t.Setenv(twin.EnvURL, "nats://[::1") },
		"no creds":     func(t *testing.T) { t.Setenv(twin.EnvCreds, "") },
		"no such file": func(t *testing.T) { t.Setenv(twin.EnvCreds, "/does/not/exist") },
		"not a seed": func(t *testing.T) {
			path := t.TempDir() + "/seed"
			if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv(twin.EnvCreds, path)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.environment(t, l, "sensor")
			set(t)
			if c, err := twin.Connect(t.Context()); err == nil {
				c.Close()
				t.Error("connected")
			}
		})
	}
	s.environment(t, l, "sensor")
	t.Setenv(twin.EnvURL, "nats://127.0.0.1:1")
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := twin.Connect(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody there: %v", err)
	}
}
