package leaf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox"
)

func (s *site) stream(l *Leaf) (jetstream.JetStream, jetstream.Stream) {
	s.t.Helper()
	conn, err := l.Connect("test")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		s.t.Fatal(err)
	}
	st, err := js.CreateOrUpdateStream(s.t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, MaxBytes: 64 << 20})
	if err != nil {
		s.t.Fatal(err)
	}
	return js, st
}

// breakJetStream stops it, as the server itself does on a disk that fails.
func (s *site) breakJetStream(l *Leaf) {
	s.t.Helper()
	if err := l.server.running().ShutdownJetStream(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) jetStreamRuns(l *Leaf) bool {
	server := l.server.running()
	return server != nil && server.JetStreamEnabled()
}

// storeIn publishes and waits for a short time.
func storeIn(js jetstream.JetStream, body []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), 250*time.Millisecond)
	defer cancel()
	_, err := js.Publish(ctx, "s", body)
	return err
}

// TestJetStreamHealsAfterAFullDisk fills the disk to the last byte under a
// stream and twins: nothing acknowledged is lost, twins say that there is no
// room, and all goes on by itself when there is (nats-server#7654).
func TestJetStreamHealsAfterAFullDisk(t *testing.T) {
	t.Parallel() // it waits
	s := newSite(t)
	s.config.StateDir = harness.SmallDisk(t, "64m")
	s.config.MaxStore = 256 << 20
	l := s.open()
	s.declare(l, declared("sensor"))
	js, _ := s.stream(l)
	conn := s.module(l, "sensor")
	acknowledged := 0
	body := make([]byte, 4096)
	for range 100 {
		if err := storeIn(js, body); err != nil {
			t.Fatal(err)
		}
		acknowledged++
	}
	if _, err := report(t, conn, "sensor", `{"before": true}`); err != nil {
		t.Fatal(err)
	}
	filler := harness.Fill(t, s.config.StateDir)
	failed := 0
	for i := 0; failed < 3 && i < 100000; i++ {
		if err := storeIn(js, body); err != nil {
			failed++
		} else {
			acknowledged++
		}
	}
	if failed == 0 {
		t.Fatal("the disk is not full")
	}
	var full *twin.Error
	for i := 0; full == nil && i < 100000; i++ { // what the journal has allocated is used first
		if _, err := report(t, conn, "sensor", fmt.Sprintf(`{"pad": "%d %s"}`, i, strings.Repeat("x", 3000))); err != nil && !errors.As(err, &full) {
			t.Fatal(err)
		}
	}
	if full == nil || full.Code != twin.CodeNoSpace {
		t.Errorf("an update on a full disk: %v", full)
	}
	eventually(t, "a person is told", func() bool { return strings.Contains(s.warned(), "JetStream does not run") })
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "messages are stored again", func() bool { return storeIn(js, body) == nil })
	acknowledged++
	eventually(t, "a person is told of that", func() bool { return strings.Contains(s.warned(), "JetStream runs again") })
	st, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	info, err := st.Info(t.Context())
	if err != nil || int(info.State.Msgs) < acknowledged {
		t.Errorf("%+v, %v: want %d messages", info.State, err, acknowledged)
	}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq += 10 {
		if _, err := st.GetMsg(t.Context(), seq); err != nil {
			t.Errorf("message %d: %v", seq, err)
		}
	}
	if _, err := report(t, conn, "sensor", `{"after": true, "pad": null}`); err != nil {
		t.Error(err)
	}
	if n := strings.Count(s.warned(), "JetStream does not run"); n > 2 {
		t.Errorf("a person was told %d times", n)
	}
	l.Close()
	l = s.open()
	if v := get(t, s.module(l, "sensor"), "sensor").Properties.Reported.Values; v["before"] != true || v["after"] != true {
		t.Errorf("after a restart: %v", v)
	}
}

// TestJetStreamThatStopped: somebody, or the server itself, stopped it.
func TestJetStreamThatStopped(t *testing.T) {
	s := newSite(t)
	l := s.open()
	js, _ := s.stream(l)
	if err := storeIn(js, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.breakJetStream(l)
		eventually(t, "messages are stored again", func() bool { return storeIn(js, []byte("x")) == nil })
	}
	config := l.server.running().JetStreamConfig()
	if !config.SyncAlways || config.Domain != "d1" || config.MaxStore != 512<<20 || config.StoreDir != filepath.Join(s.config.StateDir, "jetstream", "jetstream") {
		t.Errorf("started again with %+v", config)
	}
}

// TestRequestsAreDoneOnceAfterHealing: JetStream that is started again in a server
// that goes on carries each request out as often as it was started.
func TestRequestsAreDoneOnceAfterHealing(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.stream(l)
	for range 2 {
		s.breakJetStream(l)
		eventually(t, "JetStream runs again", func() bool { return s.jetStreamRuns(l) })
	}
	conn, err := l.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	done, err := conn.SubscribeSync("$JS.EVENT.ADVISORY.API")
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := conn.Request("$JS.API.STREAM.PURGE.S", nil, patience); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "five requests", func() bool { n, _, _ := done.Pending(); return n >= 5 })
	if m, err := conn.Request("$JS.API.STREAM.INFO.S", nil, patience); err != nil || conn.Flush() != nil {
		t.Fatal(m, err)
	}
	time.Sleep(50 * time.Millisecond) // for what must not come
	if n, _, _ := done.Pending(); n > 6 {
		t.Errorf("6 requests were carried out %d times", n)
	}
}

// TestEverybodyComesBackAfterHealing: modules, those in a network namespace of their
// own too, what they subscribed to, the agent's own connections, and the link.
func TestEverybodyComesBackAfterHealing(t *testing.T) {
	s, l, h := linkedSite(t, false)
	cloud := h.connect(t)
	p := s.process(t, l, "sensor")
	if err := l.Attach(t.Context(), "sensor", p.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if got := p.say("connect"); got != "connected" {
		t.Fatal(got)
	}
	conn := s.module(l, "sensor")
	news, err := conn.SubscribeSync("devices.d1.modules.sensor.twin.desired")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Subscribe("devices.d1.modules.sensor.rpc.ping", func(m *nats.Msg) { _ = m.Respond([]byte(`"pong"`)) }); err != nil || conn.Flush() != nil {
		t.Fatal(err)
	}
	links := make(chan bool, 16)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go l.WatchLink(ctx, func(up bool) { links <- up })
	if !<-links {
		t.Fatal("there is no link")
	}
	url := l.ClientURL()
	s.breakJetStream(l)
	eventually(t, "JetStream runs again", func() bool { return s.jetStreamRuns(l) })
	if down, up := <-links, <-links; down || !up {
		t.Errorf("the link was said to be %v, then %v", down, up)
	}
	eventually(t, "a module's report", func() bool {
		m, err := conn.Request("devices.d1.modules.sensor.twin.reported", []byte(`{"back":true}`), time.Second)
		return err == nil && !strings.Contains(string(m.Data), "error")
	})
	eventually(t, "a module's report from its namespace", func() bool { return !strings.HasPrefix(p.say("report back"), "error") })
	d := declared("sensor")
	d.Modules[0].Twin.Desired = map[string]any{"interval": 6}
	s.declare(l, d)
	if _, err := news.NextMsg(patience); err != nil {
		t.Errorf("the module does not hear of what changed: %v", err)
	}
	reachable(t, cloud)
	eventually(t, "a call from the hub", func() bool {
		answer, refusal := callFromHub(t, cloud, "devices.d1.modules.sensor.rpc.ping", "1s", nil)
		return refusal == nil && string(answer) == `"pong"`
	})
	if l.ClientURL() != url {
		t.Errorf("modules find it at %s, and before at %s", l.ClientURL(), url)
	}
}

// TestServerIsNotStoppedForADiskThatTakesNothing: twins and calls go on.
func TestServerIsNotStoppedForADiskThatTakesNothing(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	conn := s.module(l, "sensor")
	ended := make(chan struct{}, 8)
	conn.SetDisconnectErrHandler(func(*nats.Conn, error) { ended <- struct{}{} })
	dir := jetStreamDir(l.config)
	if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	s.breakJetStream(l)
	eventually(t, "a person is told", func() bool { return strings.Contains(s.warned(), "not a directory") })
	if _, err := report(t, conn, "sensor", `{"a":1}`); err != nil || len(ended) > 0 {
		t.Errorf("a report: %v, after the connection ended %d times", err, len(ended))
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "JetStream runs again", func() bool { return s.jetStreamRuns(l) })
}

// TestTwinsAreRemovedWhileItRuns: the file, or all of it. What is answered from
// then on is on the disk.
func TestTwinsAreRemovedWhileItRuns(t *testing.T) {
	for name, remove := range map[string]func(dir string) error{
		"directory": os.RemoveAll,
		"journal":   func(dir string) error { return os.Remove(filepath.Join(dir, "journal")) },
		"exchanged": func(dir string) error {
			path := filepath.Join(dir, "journal")
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte("something else"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			l := s.open()
			s.declare(l, declared("sensor"))
			conn := s.module(l, "sensor")
			if _, err := report(t, conn, "sensor", `{"before": true}`); err != nil {
				t.Fatal(err)
			}
			if err := remove(filepath.Join(s.config.StateDir, "twins")); err != nil {
				t.Fatal(err)
			}
			if _, err := report(t, conn, "sensor", `{"after": true}`); err != nil {
				t.Fatal(err)
			}
			l.Close()
			l = s.open()
			if p := get(t, s.module(l, "sensor"), "sensor").Properties; p.Reported.Values["before"] != true || p.Reported.Values["after"] != true || p.Reported.Version != 3 {
				t.Errorf("after a restart: %+v", p.Reported)
			}
		})
	}
}

// TestStoreIsRemovedWhileItRuns, by hand.
func TestStoreIsRemovedWhileItRuns(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	js, _ := s.stream(l)
	if err := storeIn(js, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(s.config.StateDir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a stream can be made and used again", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
		return strings.Contains(s.warned(), "were removed") && err == nil && storeIn(js, []byte("y")) == nil
	})
	if info, err := os.Stat(filepath.Join(s.config.StateDir, "jetstream")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
	l.Close()
	l = s.open()
	js, st := s.stream(l)
	_ = js
	if m, err := st.GetLastMsgForSubject(t.Context(), "s"); err != nil || string(m.Data) != "y" {
		t.Errorf("after a restart: %v, %v", m, err)
	}
}

// TestFullDiskUnderTheOutbox: modules are told that there is no room, and once
// there is, what they send goes on to be stored, without anybody's help; what was
// acknowledged is delivered.
func TestFullDiskUnderTheOutbox(t *testing.T) {
	s := newSite(t)
	s.config.StateDir = harness.SmallDisk(t, "64m")
	s.config.MaxStore = 256 << 20
	l := s.open()
	s.declare(l, declared("sensor"))
	conn, err := l.Connect("outbox")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	o, err := outbox.Open(t.Context(), conn, nil, outbox.Config{Device: "d1", StateDir: s.config.StateDir, Warn: l.warn})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = o.Close() }()
	c := s.client(t, l, "sensor")
	send := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return c.Send(ctx, "m", make([]byte, 4096))
	}
	if err := send(); err != nil {
		t.Fatal(err)
	}
	filler := harness.Fill(t, s.config.StateDir)
	var full *twin.Error
	if err := send(); !errors.As(err, &full) || full.Code != twin.CodeNoSpace {
		t.Errorf("sent to a full disk: %v", err)
	}
	// Somebody else writes to JetStream all the same, until it breaks.
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "X", Subjects: []string{"x"}})
	s.breakJetStream(l)
	if err := send(); err == nil {
		t.Error("sent while nothing can be stored")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "messages are stored again", func() bool { return send() == nil })
	if stats, err := o.Stats(t.Context()); err != nil || stats.Pending < 2 {
		t.Errorf("%+v, %v", stats, err)
	}
}
