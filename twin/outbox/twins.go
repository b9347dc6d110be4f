package outbox

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

// Twins are the twins of the device, as twin/leaf keeps them.
type Twins interface {
	// Documents returns all of them; the values are not modified.
	Documents() []twin.Document
	// Changed holds a value when a document changed since the last receive.
	Changed() <-chan struct{}
	// Raise lifts the versions of a twin to at least these.
	Raise(ctx context.Context, module string, desired, reported uint64) error
}

const (
	twinTimeout = 30 * time.Second       // for the hub's answer to one document
	minPause    = 10 * time.Millisecond  // before the next try after one that failed
	maxPause    = 2 * time.Second        // with the link known to be down, asking costs nothing but local work
	twinGather  = 100 * time.Millisecond // between two looks at the documents: changes in between are one
)

// uplink keeps the hub's copy of the twins at the newest document. It sends a
// document when its versions are not those that the hub confirmed, and all of
// them when the link came up, because the hub may have been restored from an
// older copy.
//
// A module that is no longer declared has a document too, which says so and has
// nothing but its versions. The hub keeps it, so that they go on where they were
// when the module is declared again, also on a device that lost its state.
type uplink struct {
	outbox    *Outbox
	twins     Twins
	confirmed map[string]versions // by module; the device's own under ""
}

type versions struct{ desired, reported uint64 }

func (u *uplink) run(ctx context.Context) {
	pause := time.Duration(0)
	kicked := u.outbox.kick.next()
	for ctx.Err() == nil {
		again, err := u.sendAll(ctx)
		var timer <-chan time.Time
		changed := u.twins.Changed()
		switch {
		case err != nil && ctx.Err() == nil:
			u.outbox.counts.failed(err)
			pause = min(max(pause*2, minPause), maxPause)
			timer, changed = time.After(pause/2+rand.N(pause/2+1)), nil
		case again:
			timer, changed = time.After(twinGather), nil
		default:
			pause = 0
		}
		select {
		case <-ctx.Done():
		case <-timer:
		case <-changed:
			sleep(ctx, twinGather, u.outbox.kick.next())
		case <-kicked:
			pause, u.confirmed = 0, nil
			kicked = u.outbox.kick.next()
		}
	}
}

func sleep(ctx context.Context, d time.Duration, cut <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-cut:
	case <-ctx.Done():
	}
}

// sendAll sends every document that the hub has not confirmed. again says that
// versions were raised, so that there is something new to send. One that fails
// does not hold up those behind it, while the hub answers.
func (u *uplink) sendAll(ctx context.Context) (again bool, err error) {
	if u.confirmed == nil {
		u.confirmed = map[string]versions{}
	}
	for _, d := range u.twins.Documents() {
		v := versions{d.Properties.Desired.Version, d.Properties.Reported.Version}
		if u.confirmed[d.Module] == v {
			continue
		}
		raised, failed := u.send(ctx, d, v)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("send the twin of %s: %w", describe(d), failed))
			if errors.Is(failed, errUnanswered) {
				return again, err
			}
		}
		again = again || raised
	}
	return again, err
}

// errUnanswered says that the hub is out of reach.
var errUnanswered = errors.New("no answer from the hub")

func (u *uplink) send(ctx context.Context, d twin.Document, v versions) (raised bool, err error) {
	r, err := u.ask(ctx, d)
	var refusal *twin.Error
	if errors.As(err, &refusal) && refusal.Code < 500 && refusal.Code != twin.CodeBusy {
		// It will not take this document, however often: say so, wait for the next.
		u.outbox.config.Warn(fmt.Errorf("the hub refuses the twin of %s: %w", describe(d), err))
		u.confirmed[d.Module] = v
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if r.Stored {
		u.confirmed[d.Module] = v
		return false, nil
	}
	return true, u.raise(ctx, d.Module, v, r)
}

// ask sends a document and returns the hub's answer.
func (u *uplink) ask(ctx context.Context, d twin.Document) (twin.Receipt, error) {
	limit, cancel := within(ctx, u.outbox.kick.next(), twinTimeout)
	defer cancel()
	answer, err := u.outbox.hub.RequestWithContext(limit, twin.UpTwin(d.Device), d.Encode())
	if errors.Is(err, nats.ErrMaxPayload) {
		return twin.Receipt{}, &twin.Error{Code: twin.CodeTooLarge, Message: err.Error()}
	}
	if errors.Is(err, nats.ErrNoResponders) { // there is no link, or no hub at its other end
		return twin.Receipt{}, errUnanswered
	}
	if err != nil {
		return twin.Receipt{}, fmt.Errorf("%w: %w", errUnanswered, err)
	}
	return twin.ReadReceipt(answer.Data)
}

// raise goes above what the hub holds: this device is the one that knows, but a
// version that was used never names another document.
func (u *uplink) raise(ctx context.Context, module string, v versions, r twin.Receipt) error {
	desired, reported := v.desired, v.reported
	if desired <= r.Desired {
		desired = r.Desired + 1
	}
	if reported <= r.Reported {
		reported = r.Reported + 1
	}
	return u.twins.Raise(ctx, module, desired, reported)
}

func describe(d twin.Document) string {
	if d.Module == "" {
		return "device " + d.Device
	}
	return "module " + d.Module
}
