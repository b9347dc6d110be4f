package leaf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"
)

const (
	// healEvery is how often JetStream is looked at.
	healEvery = 2 * time.Second
	// maxHeal bounds the time between two attempts to start it again.
	maxHeal = time.Minute
	// healRoom is how many bytes have to be free before it is started again: more
	// than its users leave free, so that they can go on then.
	healRoom = 8 << 20
)

// healer starts JetStream again when it has stopped. A stream whose write failed
// takes no message any more, and a full disk, or a folder that may not be written
// for a while, stops all of it, until somebody starts the server again
// (nats-server#7654). What it acknowledged is on the disk, and is there when it
// runs again.
type healer struct {
	server *server.Server
	config server.JetStreamConfig // as the server started it
	warn   func(error)

	sick  string        // why it does not run, as a person was told; empty when it runs
	pause time.Duration // before the next attempt
	next  time.Time     // of that
}

// run looks after JetStream until ctx ends.
func (h *healer) run(ctx context.Context) {
	tick := time.NewTicker(healEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.look(time.Now())
		}
	}
}

// look starts JetStream again if it has stopped and there is room for it.
func (h *healer) look(now time.Time) {
	why := h.ails()
	if why == nil {
		if h.sick != "" {
			h.warn(errors.New("JetStream runs again: what modules send is stored again"))
		}
		h.sick, h.pause, h.next = "", 0, time.Time{}
		return
	}
	h.say(why)
	if now.Before(h.next) {
		return
	}
	if free, err := h.free(); err == nil && free < healRoom {
		return // it would stop again at once; looked at again with the next tick
	}
	h.pause = min(max(2*h.pause, healEvery), maxHeal)
	h.next = now.Add(h.pause)
	if err := h.restart(); err != nil {
		h.say(fmt.Errorf("start it again: %w", err))
	}
}

// say tells a person what is new.
func (h *healer) say(why error) {
	if text := why.Error(); text != h.sick {
		h.sick = text
		h.warn(fmt.Errorf("JetStream does not run, so nothing that modules send is stored: %w; it is started again as soon as %d MiB are free at %s", why, healRoom>>20, h.config.StoreDir))
	}
}

// ails says why JetStream does not do its work; nil when it does.
func (h *healer) ails() error {
	if !h.server.JetStreamEnabled() {
		return errors.New("it has stopped")
	}
	if _, err := os.Stat(filepath.Join(h.config.StoreDir, server.JetStreamStoreDir)); errors.Is(err, fs.ErrNotExist) {
		return errors.New("its files were removed")
	}
	health := h.server.Healthz(&server.HealthzOptions{Account: accountLocal, Details: true})
	for _, e := range health.Errors {
		// A stream that could not be read is no reason: it would not be the next time.
		if e.Type == server.HealthzErrorStream && strings.Contains(e.Error, "write error") {
			return errors.New(e.Error)
		}
	}
	return nil
}

func (h *healer) free() (int64, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(filepath.Dir(h.config.StoreDir), &disk); err != nil {
		return 0, err
	}
	return int64(disk.Bavail) * int64(disk.Bsize), nil
}

// restart does for JetStream what a start of the server does.
func (h *healer) restart() error {
	if err := h.server.ShutdownJetStream(); err != nil {
		return err
	}
	if err := os.MkdirAll(h.config.StoreDir, 0o700); err != nil {
		return err
	}
	config := h.config // which it changes
	if err := h.server.EnableJetStream(&config); err != nil {
		// It may be half up; the next attempt begins with the end of that.
		return errors.Join(err, h.server.ShutdownJetStream())
	}
	return nil
}
