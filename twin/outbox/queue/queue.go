// Package queue is one lane's messages on the device's disk.
//
// What waits at the same time is stored together, as one Record: one message in
// a JetStream stream on the leaf, which syncs each write before it acknowledges
// it. So a record is on the disk whole or not at all, and many messages cost one
// sync.
//
// A queue has its own sequence, which names messages, not records; it goes on
// behind the newest record, so the newest record is never removed. An epoch names
// one life of that sequence. There is a new one when a sequence could name another
// message than it did before: the stream is new, its newest record cannot be read,
// or the caller knows that the disk lost its end (Renew).
//
// A record that the bound dropped, or that cannot be read, is a gap: a reader
// sees it by the next record's sequence. Nothing is held for readers here. Each
// reads from where it wants, and as many as want.
//
// All faults of the stream are mended on the way: after an error the next call looks
// at what is there, makes the stream anew where it is gone, and goes on.
package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/schema"
)

// Config says which queue it is.
type Config struct {
	Lane     string      // the route's name
	Local    bool        // what is in it stays on the device: another queue than the one of that name to the hub
	MaxBytes int64       // on disk; what happens then, Refuse says
	Refuse   bool        // a full queue refuses the new (ErrFull); otherwise the oldest records go
	Store    string      // directory in which JetStream keeps its accounts, to notice a full disk, and that somebody removed the files; empty does not look
	Warn     func(error) // told what was found damaged, from any goroutine; may be nil
}

// MinBytes is the least Config.MaxBytes: there must be room for the largest record beside the
// newest.
const MinBytes = 3 << 20

// Queue is safe for concurrent use.
type Queue struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	lane    string        // Config.Lane
	store   string        // Config.Store
	stream  string        // JetStream's name
	writing chan struct{} // holds a value while somebody changes the stream
	silent  bool          // the last write was not answered; guarded by writing

	mu     sync.Mutex // guards what is below; never held during I/O
	config Config
	gone   bool          // it was deleted
	known  bool          // the fields below are what the disk has
	life   int           // rises when what was read before may not be so any more
	epoch  string        // names this life of the sequence
	first  uint64        // sequence of the oldest message that is there
	last   uint64        // sequence of the newest
	bytes  int64         // on disk, about
	floor  uint64        // nobody needs what is up to here (Remove)
	head   uint64        // JetStream's sequence of the oldest record
	tail   uint64        // of the newest record, readable or not
	spots  spots         // where in the stream sequences are
	grown  chan struct{} // closed by the next append
	dir    string        // of the stream's files; empty where that is not known
}

// Open makes the queue or takes up the one that is there. The connection stays
// the caller's, and needs every permission on the leaf's JetStream.
func Open(ctx context.Context, nc *nats.Conn, config Config) (*Queue, error) {
	if err := schema.CheckName(config.Lane); err != nil {
		return nil, fmt.Errorf("open queue: lane %w", err)
	}
	if config.MaxBytes < MinBytes {
		return nil, fmt.Errorf("open queue %s: bound %d bytes: want at least %d", config.Lane, config.MaxBytes, MinBytes)
	}
	if config.Warn == nil {
		config.Warn = func(error) {}
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open queue %s: %w", config.Lane, err)
	}
	q := &Queue{nc: nc, js: js, lane: config.Lane, store: config.Store, stream: streamOf(config), first: 1, writing: make(chan struct{}, 1), config: config, grown: make(chan struct{})}
	if err := q.hold(ctx); err != nil {
		return nil, fmt.Errorf("open queue %s: %w", config.Lane, err)
	}
	defer q.release()
	if err := q.load(ctx); err != nil {
		return nil, fmt.Errorf("open queue %s: %w", config.Lane, err)
	}
	return q, nil
}

// Lane is the name of the route.
func (q *Queue) Lane() string { return q.lane }

// Epoch names the present life of the sequence. It may change by itself: see
// the package comment, and Record.Epoch.
func (q *Queue) Epoch() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.epoch
}

// Span is what is there: the sequences of the oldest and the newest message that
// were not removed, and the bytes on disk. Where nothing is there, first is
// last+1. There may be gaps in between.
func (q *Queue) Span() (first, last uint64, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return min(max(q.first, q.floor+1), q.last+1), q.last, q.bytes
}

// Grown is closed when the next record is stored. Ask for it before Read, and
// nothing is missed.
func (q *Queue) Grown() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.grown
}

// hold makes the caller the only one who changes the stream, until release.
func (q *Queue) hold(ctx context.Context) error {
	select {
	case q.writing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (q *Queue) release() { <-q.writing }

// doubt has the next call look at what the disk has.
func (q *Queue) doubt() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.known = false
}

// ready looks at what the disk has, where that is in doubt. The caller holds.
func (q *Queue) ready(ctx context.Context) error {
	q.mu.Lock()
	known, gone := q.known, q.gone
	q.mu.Unlock()
	switch {
	case gone:
		return errDeleted
	case known:
		return nil
	}
	return q.load(ctx)
}

var errDeleted = errors.New("the queue was deleted")

// Errors that a caller tells apart, with errors.Is.
var (
	ErrFull    = errors.New("the queue's bound is reached") // nothing was stored; only with Config.Refuse
	ErrNoSpace = errors.New("no room on the device's disk") // nothing was stored
	ErrStopped = errors.New("JetStream is stopped")         // by a full disk, say; goes on by itself once it runs again
	ErrSilent  = errors.New("JetStream does not answer")    // a write of it failed, or the disk is very slow; goes on by itself once JetStream was started again
	ErrWaiting = errors.New("messages are waiting in it")   // of Delete
)
