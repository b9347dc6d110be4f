package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
)

const (
	queueGroup    = "tidemark-hub"   // of several hubs at one external server, one answers
	maxWork       = 4096             // requests that are answered at a time; most of them wait
	answerTimeout = 20 * time.Second // for one request
)

// serve answers devices. Who asks is in the subject, which the server let only
// this device publish to.
func (h *Hub) serve(ctx context.Context) error {
	for subject, answer := range map[string]func(ctx context.Context, device string, body []byte) any{
		"up.*.twin": h.answerTwin,
	} {
		if _, err := h.nc.QueueSubscribe(subject, queueGroup, func(m *nats.Msg) {
			h.work <- struct{}{}
			go func() {
				defer func() { <-h.work }()
				h.answer(m, answer)
			}()
		}); err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return h.nc.FlushWithContext(ctx)
}

func (h *Hub) answer(m *nats.Msg, answer func(context.Context, string, []byte) any) {
	device := strings.Split(m.Subject, ".")[1]
	if schema.CheckName(device) != nil || !mayAnswer(device, m.Reply) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	data, err := json.Marshal(answer(ctx, device, m.Data))
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
