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

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/twin"
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
	s := newSite(t)
	s.config.StateDir = smallDisk(t, "64m")
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
	filler := fill(t, s.config.StateDir)
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
		if err := l.server.ShutdownJetStream(); err != nil {
			t.Fatal(err)
		}
		if err := storeIn(js, []byte("x")); err == nil {
			t.Fatal("it has not stopped")
		}
		eventually(t, "messages are stored again", func() bool { return storeIn(js, []byte("x")) == nil })
	}
	config := l.server.JetStreamConfig()
	if !config.SyncAlways || config.Domain != "d1" || config.MaxStore != 512<<20 || config.StoreDir != filepath.Join(s.config.StateDir, "jetstream", "jetstream") {
		t.Errorf("started again with %+v", config)
	}
}

// TestRestartedJetStreamIsConfiguredAlike: no option is lost by a restart.
func TestRestartedJetStreamIsConfiguredAlike(t *testing.T) {
	s := newSite(t)
	l := s.open()
	before := *l.server.JetStreamConfig()
	h := &healer{server: l.server, config: jetStreamConfig(l.config), warn: l.warn}
	if err := h.restart(); err != nil {
		t.Fatal(err)
	}
	if after := *l.server.JetStreamConfig(); after != before {
		t.Errorf("configured %+v, was %+v", after, before)
	}
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
