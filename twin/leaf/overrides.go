package leaf

import (
	"context"
	"sync"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/ledger"
)

// OverrideEvent says what became of an override.
type OverrideEvent struct {
	At       time.Time     // by the device's clock
	Module   string        // empty: the device's own twin
	What     string        // one of the Override constants
	By       string        // who set it, replaced it or ended it; empty where no person did
	Override twin.Override // that was set, or that ended
}

// What OverrideEvent.What may say. All but the first are how one ends.
const (
	OverrideSet       = "set"
	OverrideReplaced  = "replaced"       // another one was set
	OverrideCleared   = "cleared"        // a person ended it
	OverrideExpired   = "expired"        // its time is over
	OverrideAdopted   = ledger.Adopted   // Git says the same now
	OverrideForbidden = ledger.Forbidden // the definition does not allow it any more
	OverrideUnfit     = ledger.Unfit     // over what Git says now, desired would be beyond a limit
	OverrideRemoved   = ledger.Removed   // the module is no longer declared
)

// retryAfter is how long an override that could not be ended waits for another
// try: the disk is full.
const retryAfter = 10 * time.Second

// overrides is what watches over their time, and tells what became of them.
type overrides struct {
	noted func(OverrideEvent)
	kick  chan struct{} // holds one value when there is news

	mu     sync.Mutex
	events []OverrideEvent // to be told
}

func newOverrides(noted func(OverrideEvent)) *overrides {
	if noted == nil {
		noted = func(OverrideEvent) {}
	}
	return &overrides{noted: noted, kick: make(chan struct{}, 1)}
}

// note has an event told. Whoever is told may call the leaf, so not from here.
func (o *overrides) note(e OverrideEvent) {
	o.mu.Lock()
	o.events = append(o.events, e)
	o.mu.Unlock()
	select {
	case o.kick <- struct{}{}:
	default:
	}
}

// flush tells what is to be told.
func (o *overrides) flush() {
	o.mu.Lock()
	events := o.events
	o.events = nil
	o.mu.Unlock()
	for _, e := range events {
		o.noted(e)
	}
}

// watchOverrides ends overrides when their time is over, and writes down how much
// of it is left, until ctx ends.
func (l *Leaf) watchOverrides(ctx context.Context) {
	for {
		next := l.expire()
		l.overrides.flush()
		timer := time.NewTimer(next)
		select {
		case <-timer.C:
		case <-l.overrides.kick:
		case <-ctx.Done():
			timer.Stop()
			l.overrides.flush()
			return
		}
		timer.Stop()
	}
}

// expire ends the overrides whose time is over and returns how long there is
// nothing to do. That is never long: a machine that was suspended has moved on
// while a timer has not.
func (l *Leaf) expire() (next time.Duration) {
	l.declaring.Lock()
	defer l.declaring.Unlock()
	next = ledger.ChargeEvery
	for _, state := range l.Overrides() {
		e, _ := l.ledger.Get(state.Module)
		left, ends := l.config.clock.Left(e.Countdown)
		switch {
		case !ends:
		case left <= 0:
			if _, err := l.endOverride(state.Module, OverrideExpired, ""); err != nil {
				next = min(next, retryAfter) // the store has said why
			}
		default:
			next = min(next, left)
		}
	}
	l.ledger.Charge(l.config.clock)
	return next
}
