package leaf

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAHubThatRefusesIsLeftAlone: thousands of devices whose keys a hub has forgotten
// would keep it from everything else, at three attempts a second each.
func TestAHubThatRefusesIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, tries := newRefusals(), 0
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		try := func(refused bool) {
			r.rest(ctx)
			tries++
			time.Sleep(passPause)
			if refused {
				r.tell()
			}
		}
		during := func(d time.Duration) int {
			tries = 0
			for began := time.Now(); time.Since(began) < d; {
				try(true)
			}
			return tries
		}
		if n := during(time.Minute); n < 5 || n > 12 {
			t.Errorf("%d attempts in the first minute", n)
		}
		if n := during(time.Hour); n < 100 || n > 140 {
			t.Errorf("%d attempts in an hour", n)
		}
		if !r.lasts() {
			t.Error("it is not known that the hub refuses")
		}
		go func() { time.Sleep(time.Second); r.hurry() }()
		began := time.Now()
		try(true)
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("hurried, it waits %v", took)
		}
		if n := during(4 * time.Second); n < 4 {
			t.Errorf("%d attempts after it was hurried", n)
		}
		for range 20 {
			try(false) // a hub that admits, and whose link is cut each time
		}
		began = time.Now()
		try(false)
		if took := time.Since(began); took > passPause || r.lasts() {
			t.Errorf("a hub that does not refuse is asked after %v", took)
		}
		during(time.Hour)
		time.AfterFunc(time.Second, cancel)
		r.rest(ctx) // ends with ctx
	})
}

// TestADeviceThatIsNotAdmittedSaysSo, asks seldom, and is linked soon after it is
// admitted and told to look.
func TestADeviceThatIsNotAdmittedSaysSo(t *testing.T) {
	s := newSite(t)
	stranger := startHub(t, "UAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 0, false, nil)
	s.linkTo(stranger.port)
	l := s.open()
	eventually(t, "the hub refuses", func() bool { return l.Refused() != nil })
	eventually(t, "it is asked seldom", func() bool {
		l.log.refusals.mu.Lock()
		defer l.log.refusals.mu.Unlock()
		return l.log.refusals.count > refusalsAtOnce+2
	})
	if said := s.warned(); strings.Count(said, "does not admit this device's key") != 1 || strings.Contains(said, "Authorization Violation") {
		t.Errorf("a person is told %q", said)
	}
	stranger.Shutdown()
	stranger.WaitForShutdown()
	startHub(t, deviceIdentity(t, s), stranger.port, false, nil)
	l.Relink()
	waitLinked(t, l, true)
	if err := l.Refused(); err != nil {
		t.Errorf("linked, it says %v", err)
	}
}
