package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
)

const (
	maxGather      = twin.MaxItems // messages that are stored in one go
	maxGatherBytes = 4 << 20       // and bytes

	// What may wait for the disk, in memory. Beyond it messages are lost, as NATS
	// does; no answer tells the module.
	maxWaiting      = 32 << 10 // messages
	maxWaitingBytes = 32 << 20 // bytes

	storeTimeout = time.Minute // a disk that takes longer is answered as failed
)

// intake takes modules' messages, stores what waits in one go and answers.
// While that is synced to the disk the next gather; a message that comes alone is
// stored alone, at once.
type intake struct {
	outbox  *Outbox
	waiting chan *nats.Msg
}

func (in *intake) subscribe(ctx context.Context) error {
	subject := twin.Prefix(in.outbox.config.Device, "") + ".modules.*.out.>"
	sub, err := in.outbox.local.Subscribe(subject, func(m *nats.Msg) {
		select {
		case in.waiting <- m:
		case <-ctx.Done():
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	if err := sub.SetPendingLimits(maxWaiting, maxWaitingBytes); err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject, err)
	}
	context.AfterFunc(ctx, func() { sub.Unsubscribe() })
	in.outbox.counts.watch(sub)
	flush, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return in.outbox.local.FlushWithContext(flush)
}

func (in *intake) run(ctx context.Context) {
	for {
		batch := in.gather(ctx)
		if batch == nil {
			return
		}
		in.store(ctx, batch)
	}
}

// gather waits for one message and takes what else is there; nil when ctx ended.
func (in *intake) gather(ctx context.Context) []*nats.Msg {
	var batch []*nats.Msg
	select {
	case m := <-in.waiting:
		batch = append(batch, m)
	case <-ctx.Done():
		return nil
	}
	for size := len(batch[0].Data); len(batch) < maxGather && size < maxGatherBytes; {
		select {
		case m := <-in.waiting:
			batch, size = append(batch, m), size+len(m.Data)
		default:
			return batch
		}
	}
	return batch
}

// letter is one message on its way to the disk.
type letter struct {
	msg     *nats.Msg
	module  string
	name    string
	lanes   []*lane // that take it, those that may refuse first
	encoded []byte  // as an item
	seq     uint64  // in the first lane that stored it
	err     error   // why it is not stored
}

// store stores a batch and answers each of its messages. What cannot be stored
// is answered by itself and does not hold up the others.
func (in *intake) store(ctx context.Context, batch []*nats.Msg) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	plan, wall := in.outbox.planned(), time.Now()
	letters := make([]*letter, 0, len(batch))
	for _, m := range batch {
		l := &letter{msg: m}
		if l.err = in.read(l, plan, wall); l.err == nil && len(l.lanes) == 0 {
			in.unrouted(l)
			continue
		}
		letters = append(letters, l)
	}
	stamp := in.outbox.clock.Stamp()
	in.storeIn(ctx, letters, stamp, true)
	in.storeIn(ctx, letters, stamp, false)
	failpoint.Reach("outbox.stored")
	stored := 0
	for _, l := range letters {
		if l.err != nil {
			in.refuse(l)
			continue
		}
		stored++
		in.answer(l, stamped{Seq: l.seq})
	}
	in.outbox.counts.took(stored)
}

// storeIn stores letters in the lanes that may refuse, or in the others.
func (in *intake) storeIn(ctx context.Context, letters []*letter, stamp queue.Stamp, refusing bool) {
	by := map[*lane][]*letter{}
	for _, l := range letters {
		if l.err != nil {
			continue
		}
		for _, to := range l.lanes {
			if r, _ := to.route(); r.refuses() == refusing {
				by[to] = append(by[to], l)
			}
		}
	}
	if len(by) > 1 && refusing {
		turnAway(by)
	}
	var wait sync.WaitGroup
	var mu sync.Mutex // guards letters: each may be in several lanes
	for to, of := range by {
		wait.Go(func() { storeLane(ctx, to, of, stamp, &mu) })
	}
	wait.Wait()
}

// turnAway refuses letters for which one of several lanes has no room, before
// another has stored them.
func turnAway(by map[*lane][]*letter) {
	for to, of := range by {
		size := 0
		for _, l := range of {
			if size += len(l.encoded) + 1024; l.err == nil && !to.queue.Room(size) {
				l.err = fmt.Errorf("route %s: %w", to.key.name, queue.ErrFull)
			}
		}
	}
	for to, of := range by {
		kept := of[:0]
		for _, l := range of {
			if l.err == nil {
				kept = append(kept, l)
			}
		}
		by[to] = kept
	}
}

// storeLane stores letters in one lane, in as few records as they fit into.
func storeLane(ctx context.Context, to *lane, letters []*letter, stamp queue.Stamp, mu *sync.Mutex) {
	for len(letters) > 0 {
		r := queue.Record{Stored: stamp}
		size := 0
		for r.Count < len(letters) && r.Count < twin.MaxItems && (r.Count == 0 || size+len(letters[r.Count].encoded) <= queue.MaxRecord) {
			size += len(letters[r.Count].encoded)
			r.Count++
		}
		r.Items = make([]byte, 0, size)
		for _, l := range letters[:r.Count] {
			r.Items = append(r.Items, l.encoded...)
		}
		from, err := to.queue.Append(ctx, r)
		mu.Lock()
		for i, l := range letters[:r.Count] {
			if err != nil {
				l.err = errors.Join(l.err, err)
			} else if l.seq == 0 {
				l.seq = from + uint64(i)
			}
		}
		mu.Unlock()
		to.stored(r.Count, err)
		letters = letters[r.Count:]
	}
}

// read checks a message and finds out where it goes.
func (in *intake) read(l *letter, p *plan, wall time.Time) error {
	m, device := l.msg, in.outbox.config.Device
	var err error
	if l.module, l.name, err = readIntake(device, m.Subject); err != nil {
		return &twin.Error{Code: twin.CodeMalformed, Message: err.Error()}
	}
	if m.Reply != "" && !twin.MayAnswer(device, l.module, m.Reply) {
		m.Reply = ""
		return &twin.Error{Code: twin.CodeRefused, Message: "the reply subject is not the module's own"}
	}
	if len(m.Data) > twin.MaxBody {
		return &twin.Error{Code: twin.CodeTooLarge, Message: fmt.Sprintf("message has %d bytes, the most is %d", len(m.Data), twin.MaxBody)}
	}
	if err := twin.CheckHeader(m.Header); err != nil {
		return err
	}
	if l.lanes, err = p.lanes(l, in.outbox.counts.condition); err != nil {
		return err
	}
	if len(l.lanes) > 0 {
		item := twin.Item{Count: 1, Module: l.module, Name: l.name, Time: wall, Header: m.Header, Body: m.Data}
		l.encoded = item.Append(make([]byte, 0, item.Size()))
	}
	return nil
}

// readIntake tells which module's message it is by the subject that the leaf
// let it through on: devices.<device>.modules.<module>.out.<name>.
func readIntake(device, subject string) (module, name string, err error) {
	rest, ok := strings.CutPrefix(subject, twin.Prefix(device, "")+".modules.")
	if !ok {
		return "", "", fmt.Errorf("subject %q is not of a module of %s", subject, device)
	}
	module, name, ok = strings.Cut(rest, ".out.")
	if !ok {
		return "", "", fmt.Errorf("subject %q: want …out.<name>", subject)
	}
	if err := schema.CheckName(module); err != nil {
		return "", "", fmt.Errorf("module %w", err)
	}
	if err := schema.CheckName(name); err != nil {
		return "", "", fmt.Errorf("message %w", err)
	}
	return module, name, nil
}

// unrouted takes a message that no route takes.
func (in *intake) unrouted(l *letter) {
	if in.outbox.counts.unroute(l.module + "/" + l.name) {
		in.outbox.config.Warn(fmt.Errorf("messages of %s/%s go nowhere: no route takes them", l.module, l.name))
	}
	in.answer(l, stamped{})
}

// stamped is the answer to a message that is on disk, or that no route takes.
type stamped struct {
	Seq   uint64      `json:"seq,omitempty"` // in the queue of the first route that takes it
	Error *twin.Error `json:"error,omitempty"`
}

func (in *intake) refuse(l *letter) {
	in.outbox.counts.refuse()
	var refusal *twin.Error
	if !errors.As(l.err, &refusal) {
		refusal = storeError(l.err)
		in.outbox.warnOnce(l.err)
	}
	in.answer(l, stamped{Error: refusal})
}

func (in *intake) answer(l *letter, a stamped) {
	if l.msg.Reply == "" {
		return
	}
	data, err := json.Marshal(a)
	if err != nil {
		return // numbers and strings do marshal
	}
	if err := in.outbox.local.Publish(l.msg.Reply, data); err != nil {
		in.outbox.config.Warn(fmt.Errorf("answer %s: %w", l.msg.Subject, err))
	}
}

func storeError(err error) *twin.Error {
	switch {
	case errors.Is(err, queue.ErrFull):
		return &twin.Error{Code: twin.CodeNoSpace, Message: "the bound of the route is reached: " + err.Error()}
	case errors.Is(err, queue.ErrNoSpace):
		return &twin.Error{Code: twin.CodeNoSpace, Message: "no room on the device's disk: " + err.Error()}
	}
	return &twin.Error{Code: twin.CodeFailed, Message: "not stored for certain: " + err.Error()}
}
