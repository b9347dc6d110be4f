package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

const (
	takeTimeout  = 30 * time.Second // for a module's answer
	leastPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second // between tries of a message that the module does not take
	absentPause  = time.Second     // and while there is no such module: asking costs next to nothing
	readAhead    = 256 << 10       // bytes that are read at a time
	noteEvery    = time.Second     // how often it is written how far the module is
)

// deliverer hands the messages of a lane to a module of this device, one after
// the other: the next when the module has answered to the one before.
//
// How far it is, it writes down from time to time: after a power cut the module gets
// the last few once more.
type deliverer struct {
	outbox *Outbox
	lane   *lane
	at     place
	noted  place     // that is on the disk
	when   time.Time // when it was written
	pause  time.Duration
}

// place is a place in a queue: everything up to Seq is taken, or dropped.
type place struct {
	Epoch string `json:"epoch"`
	Seq   uint64 `json:"seq"`
}

// deliverAll starts delivery of lanes that stay on the device, where that is not
// under way. The caller holds mu.
func (o *Outbox) deliverAll() {
	for _, l := range o.lanes {
		if !l.key.local || l.stop != nil || o.running.Err() != nil {
			continue
		}
		ctx, stop := context.WithCancel(o.running)
		l.stop = stop
		d := &deliverer{outbox: o, lane: l}
		o.done.Go(func() { d.run(ctx) })
	}
}

func (d *deliverer) run(ctx context.Context) {
	d.load()
	d.lane.passed(d.at.Seq)
	defer d.note(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		grown := d.lane.queue.Grown()
		waiting, err := d.step(ctx)
		if err != nil && ctx.Err() == nil {
			d.lane.failed(err)
			d.rest(ctx, longestPause)
			continue
		}
		if waiting {
			continue
		}
		d.note(ctx)
		select {
		case <-grown:
		case <-ctx.Done():
		}
	}
}

// step delivers what one read gives. waiting says that there may be more.
func (d *deliverer) step(ctx context.Context) (waiting bool, err error) {
	if epoch := d.lane.queue.Epoch(); epoch != d.at.Epoch {
		if d.at.Epoch != "" {
			d.renewed()
		}
		first, _, _ := d.lane.queue.Span()
		d.move(place{epoch, first - 1})
	}
	records, err := d.lane.queue.Read(ctx, d.at.Seq, readAhead)
	if err != nil {
		return false, err
	}
	for _, r := range records {
		if r.Epoch != d.at.Epoch {
			return true, nil
		}
		if r.From > d.at.Seq+1 {
			d.lane.lost(twin.LostBound, d.at.Epoch, d.at.Seq+1, r.From-1)
			d.move(place{d.at.Epoch, r.From - 1})
		}
		if err := d.record(ctx, r); errors.Is(err, errMoved) {
			return true, nil
		} else if err != nil {
			return true, err
		}
	}
	return len(records) > 0, nil
}

// errMoved says that the queue got another life: what was read is no more.
var errMoved = errors.New("the queue is another")

// move says how far the module is.
func (d *deliverer) move(to place) {
	d.at = to
	d.lane.passed(to.Seq)
}

// record delivers the messages of one record that are not delivered yet.
func (d *deliverer) record(ctx context.Context, r queue.Record) error {
	items, err := twin.ReadItems(r.Items, r.Count, r.From)
	if err != nil {
		d.outbox.config.Warn(fmt.Errorf("route %s: messages %d to %d are dropped: %w", d.lane.key.name, r.From, r.Last(), err))
		d.lane.lost(twin.LostDamaged, r.Epoch, d.at.Seq+1, r.Last())
		d.move(place{d.at.Epoch, r.Last()})
		return nil
	}
	for i, item := range items {
		if r.From+uint64(i) <= d.at.Seq {
			continue
		}
		if err := d.message(ctx, r, item); err != nil {
			return err
		}
		if time.Since(d.when) > noteEvery {
			d.note(ctx)
		}
	}
	return nil
}

// message delivers the next message, however often that has to be tried, unless
// it gets too old.
func (d *deliverer) message(ctx context.Context, r queue.Record, item twin.Item) error {
	for {
		rule, _ := d.lane.route()
		if d.outbox.clock.Age(r.Stored) > d.outbox.ttl(rule) {
			d.lane.lost(twin.LostTTL, r.Epoch, d.at.Seq+1, d.at.Seq+1)
			d.move(place{d.at.Epoch, d.at.Seq + 1})
			return nil
		}
		err := d.offer(ctx, rule, d.at.Seq+1, item)
		failpoint.Reach("outbox.delivered")
		if err == nil {
			d.move(place{d.at.Epoch, d.at.Seq + 1})
			d.pause = 0
			d.lane.delivered()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.lane.failed(err)
		most := longestPause
		if errors.Is(err, nats.ErrNoResponders) {
			most = absentPause
		}
		d.note(ctx)
		d.rest(ctx, most)
		if d.lane.queue.Epoch() != d.at.Epoch {
			return errMoved
		}
	}
}

// offer sends a message to the module and waits for it to take it.
func (d *deliverer) offer(ctx context.Context, r rule, seq uint64, item twin.Item) error {
	m := nats.NewMsg(twin.Prefix(d.outbox.config.Device, r.toModule) + ".in." + r.in)
	m.Data = item.Body
	for key, values := range item.Header {
		m.Header[key] = values
	}
	m.Header[twin.HeaderFrom] = []string{item.Module + "/" + item.Name}
	m.Header[twin.HeaderEpoch] = []string{d.at.Epoch}
	m.Header[twin.HeaderSeq] = []string{strconv.FormatUint(seq, 10)}
	m.Header[twin.HeaderTime] = []string{item.Time.UTC().Format(time.RFC3339Nano)}
	limit, cancel := context.WithTimeout(ctx, takeTimeout)
	defer cancel()
	answer, err := twin.RequestMsg(limit, d.outbox.local, m)
	if err != nil {
		return fmt.Errorf("deliver to %s: %w", r.To, err)
	}
	if len(answer.Data) == 0 {
		return nil
	}
	_, err = twin.ReadAnswer(answer.Data)
	if refusal, ok := errors.AsType[*twin.Error](err); ok {
		return fmt.Errorf("deliver to %s: it answers: %w", r.To, refusal)
	}
	return nil // any other answer is one
}

// rest waits, longer each time, up to most.
func (d *deliverer) rest(ctx context.Context, most time.Duration) {
	d.pause = min(max(d.pause*2, leastPause), most)
	sleep(ctx, d.pause, nil)
}

func (d *deliverer) file() string {
	return filepath.Join(d.outbox.dir(), "local", d.lane.key.name+".json")
}

// maxPlace bounds the file, in bytes.
const maxPlace = 4 << 10

// load reads how far the module is. Where that is not to be read, everything that is
// there is delivered once more.
func (d *deliverer) load() {
	data, err := durable.Read(d.file(), maxPlace)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err == nil {
		err = json.Unmarshal(data, &d.noted)
	}
	if _, last, _ := d.lane.queue.Span(); err == nil && d.noted.Epoch == d.lane.queue.Epoch() && d.noted.Seq <= last {
		d.at = d.noted
		return
	}
	if err == nil {
		d.renewed()
	}
	if err != nil {
		_, failed := durable.SetAside(d.file())
		d.outbox.config.Warn(errors.Join(fmt.Errorf("route %s: how far its messages are delivered cannot be read: %w; what is there is delivered once more", d.lane.key.name, err), failed))
	}
}

// renewed tells that the queue is not the one that it was.
func (d *deliverer) renewed() {
	d.outbox.config.Warn(fmt.Errorf("route %s: its queue was removed, or put back to an older one: what waited in it is lost, and what is there is delivered", d.lane.key.name))
}

// note writes how far the module is, and lets go of what it has.
func (d *deliverer) note(ctx context.Context) {
	if d.at == d.noted || d.at.Epoch == "" {
		return
	}
	d.when = time.Now()
	data, err := json.Marshal(d.at)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(d.file()), 0o700)
	}
	if err == nil {
		err = durable.Write(d.file(), data, 0o600)
	}
	if err == nil {
		d.noted = d.at
	}
	// On a full disk it cannot be written, and there is all the more reason to remove.
	if err = errors.Join(err, d.lane.queue.Remove(ctx, d.at.Seq)); err != nil {
		d.lane.failed(err)
	}
}
