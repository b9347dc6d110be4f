package uplink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// errOffline says that there is no link, or no hub at its end.
var errOffline = errors.New("the hub is not connected")

// answered takes the answer to a flight: where its lane stands, or why it does not
// say. It may come late, or never, or when another has overtaken it.
func (s *sender) answered(ctx context.Context, id uint64, p twin.Position, refused error, now time.Time) {
	f := s.flights[id]
	if f == nil {
		return
	}
	delete(s.flights, id)
	dead := f.dead
	s.drop(f)
	side := f.side
	current := f.run == side.run
	if current {
		if f.n == 0 {
			side.asking = false
		} else {
			side.flights--
		}
	}
	if refused != nil {
		if current && !dead {
			s.refused(f, refused, now)
		}
		return
	}
	if f.era != side.era {
		return // the hub has gone back since, perhaps after it said this
	}
	if !dead {
		s.pace.answered(f.size, now.Sub(f.sent), now)
	}
	before := side.place
	if err := side.standing(ctx, p, f.before, f.seen, now); err != nil {
		side.suspect()
		side.retry.failed(err, now, s.env.random())
		side.wentBack(err, now)
		return
	}
	s.settle(f, p, before, now)
}

// settle says what an answer means for what is under way.
func (s *sender) settle(f *flight, p, before twin.Position, now time.Time) {
	side := f.side
	current := f.run == side.run
	switch {
	case f.n == 0:
		if current {
			side.known = true
			side.reset()
			side.retry.worked()
		}
	case p.Epoch == f.Epoch && p.Seq >= f.to || side.lane.rank(p.Epoch) > side.lane.rank(f.Epoch):
		side.retry.worked()
		if p.Seq >= side.until {
			side.most = 0
		}
		if f.Epoch != side.lane.state.Life.Epoch && current {
			for _, x := range f.told {
				side.lane.tally.count(x, f.Epoch)
			}
		}
	case current:
		// It came when the lane did not stand where it should: what was sent before
		// it was lost, or refused.
		side.reset()
		if side.place == before {
			side.retry.failed(fmt.Errorf("lane %s: %w", side.wire, errNotStored), now, s.env.random())
		}
	}
}

// errNotStored says that the hub answers, and did not store what it was sent.
var errNotStored = errors.New("the hub did not store it")

// refused takes that the hub stored nothing of a flight, because of why.
func (s *sender) refused(f *flight, why error, now time.Time) {
	side := f.side
	side.reset()
	var e *twin.Error
	switch {
	case errors.Is(why, errOffline):
		side.suspect()
	case errors.As(why, &e) && e.Code == twin.CodeBusy:
		s.pace.window = max(s.pace.window/2, minWindow)
		s.pace.shrunk = now
	case errors.As(why, &e) && f.n > 0 && (e.Code == twin.CodeMalformed || e.Code == twin.CodeTooLarge || e.Code == twin.CodeSchema):
		if side.isolate(f, why) {
			return
		}
	}
	side.retry.failed(fmt.Errorf("lane %s: %w", side.wire, why), now, s.env.random())
}

// isolate finds the message that the hub will never take, by halves, and gives it
// up: the others are not lost for its sake. A process after this one finds it again.
func (s *side) isolate(f *flight, why error) bool {
	if f.n > 1 {
		s.most, s.until = f.n/2, max(s.until, f.to)
		return true
	}
	l := s.lane
	if f.told[0].Reason != "" || f.Epoch != l.state.Life.Epoch {
		return false
	}
	l.env.warn(fmt.Errorf("lane %s: message %d is given up: %w", s.wire, f.to, why))
	if len(l.refused) == maxNoted {
		l.refused = l.refused[1:]
	}
	l.refused = l.refused.with(span{f.to, f.to, twin.LostDamaged})
	return true
}

// wentBack has the side wait longer each time that the hub went back. Once is a
// hub that was restored; again and again is another device with our identity.
func (s *side) wentBack(err error, now time.Time) {
	if !errors.Is(err, errBack) {
		return
	}
	if now.Sub(s.lost) > lossMemory {
		s.losses = 0
	}
	s.lost = now
	s.losses = min(s.losses+1, 10)
	s.retry.until = now.Add(min(minPause<<(2*s.losses-2), lossPause))
}

const (
	lossMemory = 10 * time.Minute
	lossPause  = time.Minute
)
