package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

const (
	queueGroup    = "tidemark-hub"   // of several hubs at one external server, one answers
	maxWork       = 4096             // requests that are answered at a time; most of them wait
	maxDeviceWork = 16               // of one device; it sends one at a time, and again when no answer comes
	answerTimeout = 20 * time.Second // for one request
)

// serve answers devices. Who asks is in the subject, which the server let only
// this device publish to.
func (h *Hub) serve(ctx context.Context) error {
	for subject, answer := range map[string]func(ctx context.Context, device string, body []byte) any{
		"up.*.twin": h.answerTwin,
	} {
		if _, err := h.nc.QueueSubscribe(subject, queueGroup, func(m *nats.Msg) {
			device := strings.Split(m.Subject, ".")[1]
			if schema.CheckName(device) != nil || !mayAnswer(device, m.Reply) {
				return
			}
			if !h.work.take(device) {
				h.respond(m, twin.Receipt{Error: &twin.Error{Code: twin.CodeBusy, Message: "too many requests of this device wait; try again"}})
				return
			}
			go func() {
				defer h.work.give(device)
				ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
				defer cancel()
				h.respond(m, answer(ctx, device, m.Data))
			}()
		}); err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return h.nc.FlushWithContext(ctx)
}

func (h *Hub) respond(m *nats.Msg, answer any) {
	data, err := json.Marshal(answer)
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		h.complain(fmt.Errorf("answer %s: %w", m.Subject, err))
	}
}

// complain warns of what went wrong, unless it did because the hub is closed.
func (h *Hub) complain(err error) {
	if !errors.Is(err, nats.ErrConnectionClosed) {
		h.config.Warn(err)
	}
}

// work counts the requests that are being answered.
type work struct {
	all chan struct{} // one value for each

	mu sync.Mutex
	of map[string]int // by device
}

func newWork() *work {
	return &work{all: make(chan struct{}, maxWork), of: map[string]int{}}
}

// take waits for room, and reports whether the device itself has some.
func (w *work) take(device string) bool {
	w.mu.Lock()
	if w.of[device] == maxDeviceWork {
		w.mu.Unlock()
		return false
	}
	w.of[device]++
	w.mu.Unlock()
	w.all <- struct{}{}
	return true
}

func (w *work) give(device string) {
	<-w.all
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of[device]--; w.of[device] == 0 {
		delete(w.of, device)
	}
}
