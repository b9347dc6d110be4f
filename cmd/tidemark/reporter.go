package main

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"time"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
)

// When the surroundings are reported. What is in them changes with each message,
// and a report is a write on the disk and a message to the hub (kubeedge#6269).
const (
	lookEvery  = 30 * time.Second // between two looks at what moves
	newsPause  = 5 * time.Second  // at least, between two reports of a link or an override that changed
	staleAfter = 10 * time.Minute // then small changes are reported too
)

// reporter is the reconciler's Reporter: the leaf, with the routes of a definition
// handed to the outbox, and its surroundings added to the report.
type reporter struct {
	inner  reconciler.Reporter                                      // the twins
	route  func(context.Context, []schema.Route)                    // routes, to be gone by
	look   func(context.Context, schema.Report) schema.Surroundings // how they are now
	relink func()                                                   // to a hub that refused the device
	news   chan struct{}                                            // holds a value when the link or an override changed

	mu   sync.Mutex
	base *schema.Report      // the reconciler's newest; nil before the first
	told schema.Surroundings // that were reported
	at   time.Time           // when
}

// Declare implements reconciler.Reporter. Routes that cannot be gone by now keep
// no module from running.
func (r *reporter) Declare(ctx context.Context, desired schema.Desired) error {
	err := r.inner.Declare(ctx, desired)
	r.relink() // with this commit the hub may admit the device
	r.route(ctx, desired.Routes)
	return err
}

// Report implements reconciler.Reporter.
func (r *reporter) Report(ctx context.Context, report schema.Report) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.base = &report
	return r.tell(ctx, r.look(ctx, report))
}

// tell reports. The caller holds r.mu.
func (r *reporter) tell(ctx context.Context, around schema.Surroundings) error {
	report := *r.base
	report.Surroundings = around
	err := r.inner.Report(ctx, report)
	if err == nil {
		r.told, r.at = around, time.Now()
	}
	return err
}

// changed says that the link or an override changed.
func (r *reporter) changed() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// watch reports the surroundings when they have changed enough, until ctx ends.
// warn is told when that fails, once for as long as it does.
func (r *reporter) watch(ctx context.Context, warn func(error)) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var failed error
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.news:
		case <-tick.C:
		}
		err := r.refresh(ctx)
		if err != nil && failed == nil && !errors.Is(err, ctx.Err()) {
			warn(err)
		}
		failed = err
		select { // so that a link that comes and goes is no storm
		case <-ctx.Done():
			return
		case <-time.After(newsPause):
		}
	}
}

// refresh reports the surroundings if they have changed enough.
func (r *reporter) refresh(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.base == nil {
		return nil
	}
	now := r.look(ctx, *r.base)
	stale := time.Since(r.at) >= staleAfter && !reflect.DeepEqual(now, r.told)
	if !stale && reflect.DeepEqual(gist(now), gist(r.told)) {
		return nil
	}
	return r.tell(ctx, now)
}
