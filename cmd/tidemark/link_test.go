package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestTwoDevicesWithOneIdentity: they cut each other off for ever, which must
// not fill the log or hammer the fleet repository's server.
func TestTwoDevicesWithOneIdentity(t *testing.T) {
	var out bytes.Buffer
	kicks, moves := 0, 0
	n := linkNews{log: slog.New(slog.NewTextHandler(&out, nil)), kick: func() { kicks++ }, moved: func() { moves++ }}
	now := time.Now()
	for i := range 10_000 {
		n.changed(i%2 == 0, now)
		now = now.Add(500 * time.Millisecond)
	}
	if lines := strings.Count(out.String(), "\n"); lines != linkChanges+1 {
		t.Errorf("%d lines:\n%s", lines, out.String())
	}
	if !strings.Contains(out.String(), "copied disk") {
		t.Error(out.String())
	}
	if kicks != 5000 || moves != linkChanges/2 {
		t.Errorf("%d kicks, %d moves", kicks, moves)
	}
	n.changed(true, now.Add(time.Hour))
	if moves != linkChanges/2+1 || !strings.HasSuffix(strings.TrimSpace(out.String()), "up=true") {
		t.Errorf("after an hour, %d moves:\n%s", moves, out.String())
	}
}
