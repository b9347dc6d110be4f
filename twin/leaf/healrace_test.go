//go:build !race

package leaf

// nats-server 2.15 reads, without a lock, what starting JetStream again writes, while
// requests come in: the race detector rightly says so, and there is no other way to
// start it again in the same process. So these run without the detector.

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox"
)

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
	s.config.StateDir = smallDisk(t, "64m")
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
	filler := fill(t, s.config.StateDir)
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
	if err := l.server.ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	if err := send(); err == nil {
		t.Error("sent while nothing can be stored")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "messages are stored again", func() bool { return send() == nil })
	if stats, err := o.Stats(t.Context()); err != nil || stats.Stored < 2 {
		t.Errorf("%+v, %v", stats, err)
	}
}
