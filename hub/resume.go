package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/twin"
)

const (
	maxQuestion = 1 << 10 // bytes of a twin.Await

	// How long the hub waits between two looks for what a device has just sent:
	// about as long as a disk takes to sync, then longer.
	firstLook = 500 * time.Microsecond
	lastLook  = 50 * time.Millisecond
)

// answerResume says how far the stream holds a device; when the question names
// a place, as soon as it is reached.
func (h *Hub) answerResume(ctx context.Context, device string, body []byte) any {
	want, err := readAwait(body)
	if err != nil {
		return twin.Resume{Error: &twin.Error{Code: twin.CodeMalformed, Message: err.Error()}}
	}
	ctx, done := h.waits.begin(ctx, device)
	defer done()
	for look := firstLook; ; look = min(look+look/2, lastLook) {
		r, err := h.place(device)
		if err != nil {
			h.complain(fmt.Errorf("where %s resumes: %w", device, err))
			return twin.Resume{Error: &twin.Error{Code: twin.CodeFailed, Message: err.Error()}}
		}
		if want.Epoch == "" || r.Epoch == want.Epoch && r.Seq >= want.Seq || !sleep(ctx, look) {
			return r
		}
	}
}

// sleep reports whether ctx still stands after it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func readAwait(body []byte) (twin.Await, error) {
	var want twin.Await
	if len(body) == 0 {
		return want, nil
	}
	if len(body) > maxQuestion {
		return want, fmt.Errorf("the question has %d bytes, the most is %d", len(body), maxQuestion)
	}
	if err := json.Unmarshal(body, &want); err != nil {
		return want, fmt.Errorf("the question: %w", err)
	}
	return want, nil
}

// waits bounds what one device can have the hub wait for: one thing. A newer
// question has the older one answered at once.
type waits struct {
	mu  sync.Mutex
	end map[string]*context.CancelFunc // by device
}

func (w *waits) begin(ctx context.Context, device string) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(ctx, twin.AwaitTime)
	w.mu.Lock()
	defer w.mu.Unlock()
	if older := w.end[device]; older != nil {
		(*older)()
	}
	if w.end == nil {
		w.end = map[string]*context.CancelFunc{}
	}
	mine := &cancel
	w.end[device] = mine
	return ctx, func() {
		cancel()
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.end[device] == mine {
			delete(w.end, device)
		}
	}
}

// place reads the newest message of a device from the leader of the stream: a
// direct get may be answered by a replica that is behind. What it sees is on
// disk, because the server lets nobody read a batch that is not synced yet.
func (h *Hub) place(device string) (twin.Resume, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
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
	return readResume(got.Message.Seq, got.Message.Header), nil
}

// readResume reads epoch and sequence from the headers of a stored message.
func readResume(at uint64, raw []byte) twin.Resume {
	p := readPlace(at, raw)
	return twin.Resume{Last: at, Epoch: p.at.Epoch, Seq: p.at.Seq}
}
