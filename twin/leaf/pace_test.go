package leaf

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	now := time.Unix(0, 0)
	var p pace
	p.at = now
	for range paceBurst {
		if w := p.wait(now); w != 0 {
			t.Fatalf("within the burst it waits %v", w)
		}
		p.spend(100, now)
	}
	p.spend(100, now)
	if w := p.wait(now); w != time.Second/paceRate {
		t.Errorf("one over the burst waits %v", w)
	}
	// A day of writing as soon as one may.
	var pages, writes int
	for end := now.Add(24 * time.Hour); now.Before(end); now = now.Add(p.wait(now) + time.Nanosecond) {
		p.spend(64<<10, now)
		pages, writes = pages+1+16, writes+1
	}
	if most := 24*3600*paceRate + 100; pages > most || pages < most*9/10 {
		t.Errorf("%d pages in a day, in %d writes; want at most %d", pages, writes, most)
	}
	if p.rest(now.Add(24 * time.Hour)); p.pages != 0 {
		t.Errorf("after a day of rest %v pages are owed", p.pages)
	}
	p.pages = paceBurst + 1
	p.rest(now.Add(-time.Hour)) // the clock was set back: Go's own does not, but a test's may
	if p.pages < paceBurst {
		t.Error("going back forgives")
	}
}

// TestModuleCannotWearOutTheDisk: over its burst a module is answered many
// updates at a time, and another is not touched by that.
func TestModuleCannotWearOutTheDisk(t *testing.T) {
	h := newHostile(t)
	h.leaf.twins.mu.Lock()
	s := h.leaf.twins.services["evil"]
	h.leaf.twins.mu.Unlock()
	asking := h.module(h.leaf, "evil")
	replies, err := asking.SubscribeSync("_INBOX.devices.d1.modules.evil.flood")
	if err != nil || asking.Flush() != nil {
		t.Fatal(err)
	}
	s.pacing.Lock()
	s.pace.at, s.pace.pages = time.Now(), paceBurst+1
	s.pacing.Unlock()
	written := func() int {
		journal, err := os.ReadFile(filepath.Join(h.config.StateDir, "twins", "journal"))
		if err != nil {
			t.Fatal(err)
		}
		return len(bytes.TrimRight(journal, "\x00")) // behind it is room
	}
	before := written()
	const n = 200
	for i := range n {
		if err := asking.PublishRequest(evil+".twin.reported", "_INBOX.devices.d1.modules.evil.flood", fmt.Appendf(nil, `{"i":%d}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	for range n {
		if _, err := replies.NextMsg(patience); err != nil {
			t.Fatal(err)
		}
	}
	h.unharmed()
	// 64 at a time, so 4 writes of about 300 bytes, and one of the victim.
	if grown := written() - before; grown > 20*500 {
		t.Errorf("%d updates wrote %d bytes", n, grown)
	}
	if h.warned() == "" {
		t.Error("nobody was told")
	}
}
