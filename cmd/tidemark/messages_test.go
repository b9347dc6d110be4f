package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin/leaf"
)

// TestFullDiskKeepsNoAgentFromStarting starts the leaf and the outbox a second
// time on a disk that is full. The outbox opens when there is room again.
func TestFullDiskKeepsNoAgentFromStarting(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("small", disk, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	run, err := os.MkdirTemp("/dev/shm", "agent")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(run) })
	config := schema.AgentConfig{Device: "d1", StateDir: disk, Outbox: schema.OutboxConfig{MaxBytes: 8 << 20}}
	open := func() (*leaf.Leaf, *post) {
		l, err := leaf.Open(t.Context(), leaf.Config{Device: "d1", StateDir: disk, RunDir: run, Listen: "127.0.0.1:0", MaxStore: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return l, &post{warn: func(error) {}, again: time.Millisecond, open: func(ctx context.Context) (*messages, error) {
			return openOutbox(ctx, l, config, func([]byte) {}, func(error) {})
		}}
	}
	l, p := open()
	if err := p.try(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.kick()
	p.close()
	l.Close()

	filler := filepath.Join(disk, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	f.Close()
	l, p = open()
	failed := p.try(t.Context())
	if failed == nil {
		t.Fatal("the disk is not full")
	}
	p.kick()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	p.route(t.Context(), []schema.Route{{Name: "alarms", From: "*/alarms", To: schema.ToHub}}) // of a revision that came meanwhile
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.run(ctx, failed); close(done) }()
	harness.Eventually(t, func() error {
		stats, problem := p.stats(t.Context())
		if problem != "" || len(stats.Lanes) != 1 || stats.Lanes[0].Route != "alarms" {
			return fmt.Errorf("with room on the disk: %q, lanes %+v", problem, stats.Lanes)
		}
		return nil
	})
	cancel()
	<-done
	p.kick()
	p.close()
	l.Close()
}
