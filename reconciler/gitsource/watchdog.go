package gitsource

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// errStalled: the transfer stood still, or as good as.
var errStalled = errors.New("the transfer stalled")

// stallBytes is the progress that counts. A server that sends a byte now and
// then must not hold a device for ever.
const stallBytes = 4 << 10

// watchdog ends a fetch that makes no progress. There is no limit on the whole
// time: on a slow link a fetch may take long, as long as it moves.
type watchdog struct {
	patience time.Duration
	timer    *time.Timer

	mu    sync.Mutex
	moved int
}

// watch starts a watchdog over the context that it returns.
func watch(ctx context.Context, patience time.Duration) (context.Context, *watchdog, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{patience: patience}
	w.timer = time.AfterFunc(patience, func() { cancel(errStalled) })
	return ctx, w, func() {
		w.timer.Stop()
		cancel(nil)
	}
}

func (w *watchdog) progress(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.moved += n; w.moved >= stallBytes {
		w.moved = 0
		w.timer.Reset(w.patience)
	}
}

// metered reports progress and ends after max bytes.
type metered struct {
	io.Reader
	dog  *watchdog
	max  int64
	what string
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.dog.progress(n)
	if m.max -= int64(n); m.max < 0 {
		return n, errors.New("more bytes of " + m.what + " than are plausible")
	}
	return n, err
}
