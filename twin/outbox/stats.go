package outbox

import (
	"sync"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// Stats says how an outbox stands.
type Stats struct {
	Epoch     string            `json:"epoch"`               // names this life of the outbox
	Pending   uint64            `json:"pending"`             // sequences that the hub neither holds nor was told of
	Bytes     int64             `json:"bytes"`               // on disk, settled messages that are not yet removed included
	Stored    uint64            `json:"stored"`              // messages that were taken in, since Open
	Delivered uint64            `json:"delivered"`           // messages that the hub acknowledged, since Open
	Refused   uint64            `json:"refused"`             // messages that were answered with an error, since Open
	Overrun   int               `json:"overrun"`             // messages that came faster than the disk and were lost before it, unanswered, since Open
	Lost      map[string]uint64 `json:"lost,omitempty"`      // messages dropped, and told to the hub, by reason, since Open
	Dropped   []twin.Dropped    `json:"dropped,omitempty"`   // the newest ranges of them, at most 16
	LastError string            `json:"lastError,omitempty"` // of the uplink, or of the disk; empty once it went well again
	LastSent  time.Time         `json:"lastSent,omitzero"`   // when the hub last acknowledged, by the device's clock
}

// maxRanges is how many dropped ranges are remembered.
const maxRanges = 16

// state is what Stats is made of.
type state struct {
	mu      sync.Mutex
	epoch   string
	newest  uint64
	settled uint64
	sum     Stats
	overrun func() int // set before the loops start
}

func (s *state) stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.sum
	out.Epoch = s.epoch
	out.Pending = s.newest - min(s.settled, s.newest)
	out.Overrun = s.overrun()
	out.Dropped = append([]twin.Dropped(nil), s.sum.Dropped...)
	out.Lost = make(map[string]uint64, len(s.sum.Lost))
	for k, v := range s.sum.Lost {
		out.Lost[k] = v
	}
	return out
}

func (s *state) tookIn(newest uint64, count int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest = max(s.newest, newest)
	s.sum.Stored += uint64(count)
}

func (s *state) top() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

func (s *state) refuse(error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum.Refused++
}

// settle takes a batch that the hub acknowledged.
func (s *state) settle(batch []span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = batch[len(batch)-1].to
	s.sum.LastError, s.sum.LastSent = "", time.Now()
	for _, b := range batch {
		if b.reason == "" {
			s.sum.Delivered++
			continue
		}
		if s.sum.Lost == nil {
			s.sum.Lost = map[string]uint64{}
		}
		s.sum.Lost[b.reason] += b.to - b.from + 1
		s.sum.Dropped = append(s.sum.Dropped, twin.Dropped{Epoch: s.epoch, From: b.from, To: b.to, Reason: b.reason})
		if n := len(s.sum.Dropped) - maxRanges; n > 0 {
			s.sum.Dropped = s.sum.Dropped[n:]
		}
	}
}

func (s *state) resumed(epoch string, settled uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch, s.settled = epoch, settled
}

func (s *state) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum.LastError = err.Error()
}
