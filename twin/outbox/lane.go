package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
	upstream "github.com/tidemark-edge/tidemark/twin/outbox/uplink"
)

// lane is a route with its queue.
type lane struct {
	queue *queue.Queue
	key   key
	stop  context.CancelFunc // ends local delivery; nil where there is none

	mu       sync.Mutex
	rule     rule // of the route; the last one where that is gone
	draining bool // there is no such route any more
	counts   laneCounts
}

// key names a lane: a route that goes to the hub and one that stays here have a
// queue each, though their name may be the same.
type key struct {
	name  string
	local bool
}

func (r rule) key() key { return key{r.Name, r.local()} }

func (l *lane) route() (rule, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rule, l.draining
}

// arrange opens the queues of routes that have none, deletes those that have
// drained, and tells the uplink.
func (o *Outbox) arrange(ctx context.Context) error {
	o.routing.Lock()
	defer o.routing.Unlock()
	o.mu.Lock()
	t, lanes := o.table, slices.Clone(o.lanes)
	o.mu.Unlock()
	wanted := map[key]rule{}
	for _, r := range t.rules {
		wanted[r.key()] = r
	}
	if lanes == nil {
		var err error
		if lanes, err = o.left(ctx, wanted); err != nil {
			return err
		}
	}
	// What becomes smaller goes first: there may be no room for both.
	slices.SortStableFunc(lanes, func(a, b *lane) int { return cmp.Compare(growth(a, wanted), growth(b, wanted)) })
	kept, changed, err := o.keep(ctx, lanes, wanted)
	for _, r := range t.rules {
		if _, open := wanted[r.key()]; !open {
			continue // keep has found it
		}
		q, failed := queue.Open(ctx, o.local, o.queueConfig(r.key(), r.bytes, r.refuses()))
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("route %s takes no messages: %w", r.Name, failed))
			continue
		}
		kept, changed = append(kept, &lane{queue: q, key: r.key(), rule: r}), true
	}
	o.adopt(t, kept, changed)
	return err
}

// growth is how many bytes the lane gets, beside those that it has.
func growth(l *lane, wanted map[key]rule) int64 {
	r, _ := l.route()
	return wanted[l.key].bytes - r.bytes
}

// keep goes through the lanes that are open, and takes those that stay off
// wanted.
func (o *Outbox) keep(ctx context.Context, lanes []*lane, wanted map[key]rule) (kept []*lane, changed bool, err error) {
	for _, l := range lanes {
		r, stays := wanted[l.key]
		before, drained := l.route()
		switch {
		case stays:
			delete(wanted, l.key)
			changed = changed || drained || before != r
			err = errors.Join(err, o.change(ctx, l, before, r))
		case !drained:
			changed = true
			err = errors.Join(err, o.drain(ctx, l))
		default:
			if gone := l.queue.Delete(ctx); gone == nil {
				changed = true
				if l.stop != nil {
					l.stop()
				}
				continue
			} else if !errors.Is(gone, queue.ErrWaiting) {
				err = errors.Join(err, gone)
			}
		}
		kept = append(kept, l)
	}
	return kept, changed, err
}

// change has the lane be that of r.
func (o *Outbox) change(ctx context.Context, l *lane, before, r rule) error {
	if _, drained := l.route(); drained || before.bytes != r.bytes || before.refuses() != r.refuses() {
		if err := l.queue.Bound(ctx, r.bytes, r.refuses()); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rule, l.draining = r, false
	return nil
}

// drain takes no more messages into the lane, and leaves it the bytes that it has,
// so that there is room for others.
func (o *Outbox) drain(ctx context.Context, l *lane) error {
	l.mu.Lock()
	l.draining = true
	l.mu.Unlock()
	_, _, bytes := l.queue.Span()
	return l.queue.Bound(ctx, max(queue.MinBytes, bytes), false)
}

// adopt has everybody use these lanes.
func (o *Outbox) adopt(t *table, lanes []*lane, changed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lanes, o.plan = lanes, newPlan(t, lanes)
	if !changed {
		return
	}
	var up []upstream.Lane
	for _, l := range lanes {
		if r, _ := l.route(); !l.key.local {
			up = append(up, upstream.Lane{Name: r.Name, Priority: r.Priority, TTL: o.ttl(r), LiveFirst: r.Order != schema.OrderStrict, Queue: l.queue})
		}
	}
	o.uplink.SetLanes(up)
	if o.running != nil {
		o.deliverAll()
	}
}

func (o *Outbox) ttl(r rule) time.Duration {
	if r.TTL > 0 {
		return time.Duration(r.TTL)
	}
	return o.config.TTL
}

func (o *Outbox) queueConfig(k key, bytes int64, refuse bool) queue.Config {
	return queue.Config{Lane: k.name, Local: k.local, MaxBytes: bytes, Refuse: refuse, Store: o.jetstream(), Warn: o.config.Warn}
}

// left opens queues of a former run in which something may be, and whose routes
// are gone: they drain.
func (o *Outbox) left(ctx context.Context, wanted map[key]rule) (lanes []*lane, err error) {
	there, err := queue.List(ctx, o.local)
	if err != nil {
		return nil, err
	}
	for _, c := range there {
		k := key{c.Lane, c.Local}
		if _, stays := wanted[k]; stays {
			continue
		}
		q, failed := queue.Open(ctx, o.local, o.queueConfig(k, c.MaxBytes, c.Refuse))
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		r, known := o.former[k]
		if !known {
			r = rule{Route: schema.Route{Name: k.name, Priority: 9}}
		}
		r.bytes = c.MaxBytes
		lanes = append(lanes, &lane{queue: q, key: k, rule: r, draining: true})
	}
	return lanes, err
}
