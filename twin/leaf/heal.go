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

	"github.com/tidemark-edge/tidemark/twin/leaf/admission"
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

// healer starts the server again when JetStream has stopped. A stream whose write
// failed takes no message any more, and a full disk, or a folder that may not be
// written for a while, stops all of it, until somebody starts the server again
// (nats-server#7654). What it acknowledged is on the disk, and is there when it
// runs again; modules and our own connections come back by themselves.
//
// JetStream alone could be started again in a server that goes on, and must not be
// (2.15): that keeps the subscription to its requests of each time before, so that
// from then on every request is carried out once more than it was made, and a stream
// that is deleted and made anew is deleted again with what is in it by then; and it
// replaces, without a lock, the queues that requests are read from meanwhile.
type healer struct {
	server *embedded
	lost   func() // told that the link has ended with the server
	warn   func(error)

	sick  string        // why it does not run, as a person was told; empty when it runs
	pause time.Duration // before the next attempt
	next  time.Time     // of that
}

// run looks after JetStream until ctx ends.
func (h *healer) run(ctx context.Context) {
	tick := time.NewTicker(h.server.config.healEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.look(ctx, time.Now())
		}
	}
}

// look starts the server again if JetStream has stopped and there is room for it.
// On a disk that fails now and then it waits ever longer, since modules are cut off
// each time, and forgets that after a minute without.
func (h *healer) look(ctx context.Context, now time.Time) {
	why := h.ails()
	if why == nil {
		if h.sick != "" {
			h.warn(errors.New("JetStream runs again: what modules send is stored again"))
		}
		if h.sick = ""; now.Sub(h.next) >= maxHeal {
			h.pause = 0
		}
		return
	}
	h.say(why)
	if now.Before(h.next) {
		return
	}
	if free, err := h.free(); err == nil && free < healRoom && h.server.running() != nil {
		return // it would stop again at once; looked at again with the next tick
	}
	h.pause = min(max(2*h.pause, h.server.config.healEvery), maxHeal)
	h.next = now.Add(h.pause)
	if err := h.restart(ctx); err != nil && ctx.Err() == nil {
		h.say(fmt.Errorf("start it again: %w", err))
	}
}

// say tells a person what is new.
func (h *healer) say(why error) {
	if text := why.Error(); text != h.sick {
		h.sick = text
		h.warn(fmt.Errorf("JetStream does not run, so nothing that modules send is stored: %w; it is started again as soon as %d MiB are free at %s", why, healRoom>>20, h.dir()))
	}
}

func (h *healer) dir() string { return jetStreamDir(h.server.config) }

// ails says why JetStream does not do its work; nil when it does.
func (h *healer) ails() error {
	s := h.server.running()
	if s == nil || !s.JetStreamEnabled() {
		return errors.New("it has stopped")
	}
	if _, err := os.Stat(filepath.Join(h.dir(), server.JetStreamStoreDir)); errors.Is(err, fs.ErrNotExist) {
		return errors.New("its files were removed")
	}
	health := s.Healthz(&server.HealthzOptions{Account: admission.Local, Details: true})
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
	if err := unix.Statfs(filepath.Dir(h.dir()), &disk); err != nil {
		return 0, err
	}
	return int64(disk.Bavail) * int64(disk.Bsize), nil
}

// restart starts the server again, unless the disk would not have that: without
// JetStream there are at least the twins and calls.
func (h *healer) restart(ctx context.Context) error {
	if err := writable(h.dir()); err != nil && h.server.running() != nil {
		return err
	}
	h.server.stop()
	h.lost()
	return h.server.start(ctx)
}

// writable reports why nothing can be written to a folder.
func writable(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, "try-")
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, 4096))
	return errors.Join(err, file.Sync(), file.Close(), os.Remove(file.Name()))
}
