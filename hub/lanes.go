package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/twin"
)

const (
	maxLanes  = 200_000 // whose place is held in memory, about 200 bytes each
	loadAhead = 64      // places that are loaded at a time

	loadWithin = 10 * time.Second // how long one may take
)

// place is where a lane stands.
type place struct {
	at   twin.Position
	last uint64 // sequence of its newest message in the hub's stream; 0 when there is none
}

// lanes knows where lanes stand, as it was when it looked. What it says is safe
// to act on, because every commit is made on the condition that it is still so.
type lanes struct {
	nc   *nats.Conn
	most int

	mu     sync.Mutex
	places map[string]place // by twin.Lane
}

func newLanes(nc *nats.Conn) *lanes {
	return &lanes{nc: nc, most: maxLanes, places: map[string]place{}}
}

// of says where a lane stands: from memory, or from the hub's stream.
func (l *lanes) of(ctx context.Context, lane string) (place, error) {
	p, known := l.known(lane)
	if known {
		return p, nil
	}
	p, err := l.load(ctx, lane)
	if err != nil {
		return place{}, fmt.Errorf("where %s stands: %w", lane, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if newer, known := l.places[lane]; known { // somebody was faster, and may have gone on since
		return newer, nil
	}
	l.put(lane, p)
	return p, nil
}

// known says where a lane stands, when that is in memory.
func (l *lanes) known(lane string) (p place, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, known = l.places[lane]
	return p, known
}

func (l *lanes) put(lane string, p place) {
	if _, known := l.places[lane]; !known && len(l.places) >= l.most {
		for other := range l.places { // any: it is loaded again when it is asked for
			delete(l.places, other)
			break
		}
	}
	l.places[lane] = p
}

// moved says where a lane stands now.
func (l *lanes) moved(lane string, p place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.put(lane, p)
}

// forget has a lane looked at again.
func (l *lanes) forget(lane string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.places, lane)
}

// forgetAll is for a server that may be another one, or have another disk.
func (l *lanes) forgetAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.places)
}

// prepare loads what is not in memory for several at a time. An error shows when
// the place is needed.
func (l *lanes) prepare(ctx context.Context, deliveries []*delivery) {
	var loading sync.WaitGroup
	slots := make(chan struct{}, loadAhead)
	asked := map[string]bool{}
	for _, d := range deliveries {
		if _, known := l.known(d.lane); known || asked[d.lane] {
			continue
		}
		asked[d.lane] = true
		slots <- struct{}{}
		loading.Go(func() {
			defer func() { <-slots }()
			_, _ = l.of(ctx, d.lane)
		})
	}
	loading.Wait()
}

// load reads the newest message of a lane from the leader of the stream: a direct
// get may be answered by a replica that is behind. What it sees is on disk,
// because the server lets nobody read a batch that is not synced yet.
func (l *lanes) load(ctx context.Context, lane string) (place, error) {
	ctx, cancel := context.WithTimeout(ctx, loadWithin)
	defer cancel()
	question, err := json.Marshal(map[string]string{"last_by_subj": lane + ".>"})
	if err != nil {
		return place{}, err
	}
	answer, err := l.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+StreamMessages, question)
	if err != nil {
		return place{}, fmt.Errorf("stream %s: %w", StreamMessages, err)
	}
	var got struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Seq    uint64 `json:"seq"`
			Header []byte `json:"hdrs"`
		} `json:"message"`
	}
	if err := json.Unmarshal(answer.Data, &got); err != nil {
		return place{}, fmt.Errorf("stream %s: %w", StreamMessages, err)
	}
	if got.Error != nil && got.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return place{}, nil
	}
	if got.Error != nil {
		return place{}, fmt.Errorf("stream %s: %w", StreamMessages, got.Error)
	}
	return readPlace(got.Message.Seq, got.Message.Header), nil
}

// readPlace reads epoch and sequence from the headers of a stored message. What
// carries none, or nonsense, was not written by a hub: the lane then begins anew
// behind it.
func readPlace(last uint64, raw []byte) place {
	h, err := nats.DecodeHeadersMsg(raw)
	if err != nil {
		return place{last: last}
	}
	return place{at: readHeader(h), last: last}
}
