package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

const (
	queueGroup    = "tidemark-hub"   // of several hubs at one external server, one answers
	maxWork       = 64               // requests that are answered at a time
	answerTimeout = 20 * time.Second // for one request
)

// serve answers devices. Who asks is in the subject, which the server let only
// this device publish to.
func (h *Hub) serve(ctx context.Context) error {
	for subject, answer := range map[string]func(ctx context.Context, device string, body []byte) any{
		"up.*.twin":   h.answerTwin,
		"up.*.resume": h.answerResume,
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
	// An answer is published with the hub's own permissions, so it may go only
	// where the device may listen.
	if !strings.HasPrefix(m.Reply, twin.Inbox(device, "")+".") || schema.CheckName(device) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	data, err := json.Marshal(answer(ctx, device, m.Data))
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		h.config.Warn(fmt.Errorf("answer %s: %w", m.Subject, err))
	}
}

// answerResume says how far the stream holds a device. The question has no body.
func (h *Hub) answerResume(ctx context.Context, device string, body []byte) any {
	if len(body) > 0 {
		return twin.Resume{Error: &twin.Error{Code: twin.CodeMalformed, Message: "the question has no body"}}
	}
	r, err := h.resume(ctx, device)
	if err != nil {
		h.config.Warn(fmt.Errorf("where %s resumes: %w", device, err))
		return twin.Resume{Error: &twin.Error{Code: twin.CodeFailed, Message: err.Error()}}
	}
	return r
}

// resume reads the newest message of a device from the leader of the stream: a
// direct get may be answered by a replica that is behind.
func (h *Hub) resume(ctx context.Context, device string) (twin.Resume, error) {
	question, err := json.Marshal(map[string]string{"last_by_subj": twin.Up(device) + ".>"})
	if err != nil {
		return twin.Resume{}, err
	}
	answer, err := h.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+StreamUp, question)
	if err != nil {
		return twin.Resume{}, fmt.Errorf("stream %s: %w", StreamUp, err)
	}
	var got struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Seq    uint64 `json:"seq"`
			Header []byte `json:"hdrs"`
		} `json:"message"`
	}
	if err := json.Unmarshal(answer.Data, &got); err != nil {
		return twin.Resume{}, fmt.Errorf("stream %s: %w", StreamUp, err)
	}
	if got.Error != nil && got.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return twin.Resume{}, nil
	}
	if got.Error != nil {
		return twin.Resume{}, fmt.Errorf("stream %s: %w", StreamUp, got.Error)
	}
	return readPlace(got.Message.Seq, got.Message.Header), nil
}

// readPlace reads epoch and sequence from the headers of a stored message. What
// carries none, or nonsense, was not written by an outbox: the device then goes
// on from what it has not settled.
func readPlace(at uint64, raw []byte) twin.Resume {
	r := twin.Resume{Last: at}
	h, err := nats.DecodeHeadersMsg(raw)
	if err != nil {
		return r
	}
	epoch := h.Get(twin.HeaderEpoch)
	seq, err := strconv.ParseUint(h.Get(twin.HeaderSeq), 10, 64)
	if err != nil || epoch == "" || len(epoch) > 64 {
		return r
	}
	r.Epoch, r.Seq = epoch, seq
	return r
}
