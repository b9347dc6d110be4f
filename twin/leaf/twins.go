package leaf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/ledger"
)

const (
	// maxBatch is how many requests of one module share a sync.
	maxBatch = ledger.MaxRise
	// maxQueued is how many requests of one module may wait, and their bytes.
	// More are dropped: their sender hears nothing and asks again.
	maxQueued      = 512
	maxQueuedBytes = 4 << 20
)

// twins answers for the documents. Each twin has its own connection and its own
// goroutine: a module that floods its own gets that connection cut off by the
// server, with what waits on it, and one whose patches take long to check keeps
// nobody else waiting.
type twins struct {
	device  string
	ledger  *ledger.Ledger
	methods *methods
	connect func(name string) (*nats.Conn, error)
	warn    func(error)
	conn    *nats.Conn // to publish on
	wait    sync.WaitGroup

	mu       sync.Mutex
	services map[string]*service // by module, "" is the device
}

// service answers for one twin.
type service struct {
	twins  *twins
	module string
	conn   *nats.Conn
	sub    *nats.Subscription
	calls  chan struct{} // holds one value for each call of the hub that runs

	mu       sync.Mutex
	reported *schema.ReportedSchema // nil accepts all

	pacing sync.Mutex
	pace   pace
	warned bool // that it is slowed down; run's own
}

// newTwins answers for every twin that is declared.
func (l *Leaf) newTwins() (*twins, error) {
	conn, err := l.Connect("twins")
	if err != nil {
		return nil, err
	}
	t := &twins{device: l.config.Device, ledger: l.ledger, methods: l.methods, connect: l.Connect, warn: l.warn, conn: conn, services: map[string]*service{}}
	schemas := map[string]*schema.ReportedSchema{"": nil}
	for _, module := range l.ledger.Declared() {
		e, _ := l.ledger.Get(module)
		compiled, err := compileReported(e.Reported)
		if err != nil {
			// It was accepted once; the next Declare brings what is accepted now.
			l.warn(fmt.Errorf("twin of module %s: %w", module, err))
		}
		schemas[module] = compiled
	}
	if err := t.serve(schemas); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func compileReported(source string) (*schema.ReportedSchema, error) {
	if source == "" {
		return nil, nil
	}
	return schema.CompileReported(source)
}

// serve answers for exactly these twins from now on.
func (t *twins) serve(schemas map[string]*schema.ReportedSchema) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for module, s := range t.services {
		if _, ok := schemas[module]; !ok {
			s.conn.Close()
			delete(t.services, module)
		}
	}
	for module, compiled := range schemas {
		if s := t.services[module]; s != nil {
			s.use(compiled)
			continue
		}
		s := &service{twins: t, module: module, reported: compiled, calls: make(chan struct{}, maxModuleCalls)}
		if err := s.open(); err != nil {
			return fmt.Errorf("answer for twins: %w", err)
		}
		t.services[module] = s
		t.wait.Go(s.run)
	}
	return nil
}

func (t *twins) close() {
	t.mu.Lock()
	for _, s := range t.services {
		s.conn.Close()
	}
	t.mu.Unlock()
	t.conn.Close()
	t.wait.Wait()
}

// open subscribes; when it returns the twin can be asked for.
func (s *service) open() (err error) {
	if s.conn, err = s.twins.connect("twin " + s.module); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.conn.Close()
		}
	}()
	s.sub, err = s.conn.SubscribeSync(twin.Prefix(s.twins.device, s.module) + ".twin.*")
	if err != nil {
		return err
	}
	if err = s.sub.SetPendingLimits(maxQueued, maxQueuedBytes); err != nil {
		return err
	}
	if err = s.serveCalls(); err != nil {
		return err
	}
	return s.conn.Flush()
}

func (s *service) use(compiled *schema.ReportedSchema) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reported = compiled
}

func (s *service) schema() *schema.ReportedSchema {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reported
}

// run answers requests in their order. Updates that wait together go to disk
// together.
func (s *service) run() {
	for {
		first, err := s.sub.NextMsgWithContext(context.Background())
		if errors.Is(err, nats.ErrSlowConsumer) {
			continue // it asked faster than it was answered; what was dropped it asks again
		}
		if err != nil {
			return // unsubscribed, or closed
		}
		s.slow()
		batch := []*nats.Msg{first}
		for len(batch) < maxBatch {
			if n, _, err := s.sub.Pending(); err != nil || n == 0 {
				break
			}
			m, err := s.sub.NextMsg(time.Millisecond)
			if err != nil {
				break
			}
			batch = append(batch, m)
		}
		s.answer(batch)
	}
}

// answer answers a batch: runs of updates with one sync each.
func (s *service) answer(batch []*nats.Msg) {
	var updates []*nats.Msg
	flush := func() {
		if len(updates) > 0 {
			s.update(updates)
			updates = nil
		}
	}
	prefix := twin.Prefix(s.twins.device, s.module) + ".twin."
	for _, m := range batch {
		switch strings.TrimPrefix(m.Subject, prefix) {
		case "reported", "replace":
			// Nobody else can ask like this. A message without a reply may be the
			// answer to a request that named this subject as its reply.
			if s.mayReply(m) {
				updates = append(updates, m)
			}
		case "get":
			flush()
			s.get(m)
		case "desired": // our own
		default:
			s.refuse(m, &twin.Error{Code: twin.CodeNotFound, Message: "want " + prefix + "get, " + prefix + "reported or " + prefix + "replace"})
		}
	}
	flush()
}

// get answers the document. A module does not get to see tags.
func (s *service) get(m *nats.Msg) {
	e, ok := s.twins.ledger.Get(s.module)
	if !ok || e.Document.Removed {
		s.refuse(m, &twin.Error{Code: twin.CodeNotFound, Message: "nothing is declared yet"})
		return
	}
	d := e.Document
	if s.module != "" {
		d.Tags = nil
	}
	s.reply(m, d.Encode())
}

// refuse answers with an error.
func (s *service) refuse(m *nats.Msg, err error) {
	var e *twin.Error
	if !errors.As(err, &e) {
		e = &twin.Error{Code: twin.CodeFailed, Message: err.Error()}
	}
	answer, _ := json.Marshal(twin.Answer{Error: e}) // an int and two strings
	s.reply(m, answer)
}

// reply answers a request, if the answer may go where the request says.
func (s *service) reply(m *nats.Msg, data []byte) {
	if !s.mayReply(m) {
		return
	}
	if err := m.Respond(data); errors.Is(err, nats.ErrMaxPayload) {
		s.refuse(m, &twin.Error{Code: twin.CodeTooLarge, Message: "twin is larger than a message may be"})
	}
}

// mayReply reports whether the answer may go where a request says: to the module,
// or to the agent itself or a person.
func (s *service) mayReply(m *nats.Msg) bool {
	device := s.twins.device
	return m.Reply != "" && (s.module == "" || twin.MayAnswer(device, s.module, m.Reply) || twin.MayAnswer(device, "", m.Reply))
}
