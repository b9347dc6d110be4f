package reconciler

import (
	"context"
	"sync"
	"time"
)

// How many actions go on at a time, and how long one of them keeps others waiting.
// An action is mostly the work of the runtime's shims and of runc, a process or
// several for each, and a small device has memory and cores for few at once.
//
// Who ends a module works for some 100 ms, waits for the module to end, and works
// again. To wait costs nothing, so after endTurn, which is longer than the work,
// others have their turn: a module that has an hour to stop delays nobody, and
// 200 modules that do not heed their signal are gone 12 s later than the first
// of them. In the same way a start that hangs delays no other module for longer
// than startTurn. Restarts take turns of their own, so that a module that crashed
// does not wait for all those that a deployment starts.
const (
	startsAtOnce = 4
	endsAtOnce   = 16
	startTurn    = 20 * time.Second
	endTurn      = time.Second
)

// turns are taken by those who act. Actions are begun by one pass and wait here,
// so that none waits for a pass where another has ended.
type turns struct {
	taken chan struct{} // as many as there are at once
	most  time.Duration // how long one has its turn, whether it has ended or not
}

func newTurns(atOnce int, most time.Duration) turns {
	return turns{make(chan struct{}, atOnce), most}
}

// take waits for a turn, or for ctx to end. end gives it back.
func (t turns) take(ctx context.Context) (end func(), err error) {
	select {
	case t.taken <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	back := sync.OnceFunc(func() { <-t.taken })
	timer := time.AfterFunc(t.most, back)
	return func() {
		timer.Stop()
		back()
	}, nil
}
