//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// messageSize is that of all messages that are measured, in bytes.
const messageSize = 1024

// pump publishes n messages of 1 KB with so many unanswered at a time, over one
// connection, and returns when each is answered. read says what an answer that is a
// refusal means.
type pump struct {
	conn        *nats.Conn
	subject     string
	inbox       string // where answers come
	n, inFlight int
	read        func(*nats.Msg) error
}

func (p pump) run() error {
	answers := make(chan error, p.inFlight)
	sub, err := p.conn.Subscribe(p.inbox, func(m *nats.Msg) { answers <- p.read(m) })
	if err != nil {
		return err
	}
	defer sub.Unsubscribe()
	body := make([]byte, messageSize)
	for sent, back := 0, 0; back < p.n; back++ {
		for ; sent < p.n && sent-back < p.inFlight; sent++ {
			if err := p.conn.PublishRequest(p.subject, p.inbox, body); err != nil {
				return err
			}
		}
		select {
		case err := <-answers:
			if err != nil {
				return fmt.Errorf("message %d: %w", back, err)
			}
		case <-time.After(2 * time.Minute):
			return fmt.Errorf("%d of %d messages sent were not answered", sent-back, sent)
		}
	}
	return nil
}

// pumpAll runs pumps beside one another and returns how many messages a second
// they got through.
func pumpAll(t *testing.T, pumps ...pump) float64 {
	t.Helper()
	var wait sync.WaitGroup
	failed := make(chan error, len(pumps))
	n, began := 0, time.Now()
	for _, p := range pumps {
		n += p.n
		wait.Go(func() {
			if err := p.run(); err != nil {
				failed <- err
			}
		})
	}
	wait.Wait()
	took := time.Since(began)
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	return float64(n) / took.Seconds()
}

// stream sends a message each 10 ms, each of which says its number, until it is
// stopped.
type stream struct {
	mu   sync.Mutex
	sent int // number of the newest that was begun
	stop context.CancelFunc
	done chan error
}

func newStream(t *testing.T, send func(ctx context.Context, body []byte) error) *stream {
	ctx, cancel := context.WithCancel(context.Background())
	s := &stream{stop: cancel, done: make(chan error, 1)}
	t.Cleanup(cancel)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			s.mu.Lock()
			s.sent++
			number := s.sent
			s.mu.Unlock()
			if err := send(ctx, fmt.Appendf(nil, "%-*d", messageSize, number)); err != nil && ctx.Err() == nil {
				s.done <- err
				return
			}
		}
		s.done <- nil
	}()
	return s
}

// mark is a number that only messages which are begun from now on are above.
func (s *stream) mark() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent
}

func (s *stream) end(t *testing.T) {
	t.Helper()
	s.stop()
	if err := <-s.done; err != nil {
		t.Fatal(err)
	}
}

// numberOf is what a message of a stream says.
func numberOf(body []byte) (number int, ok bool) {
	_, err := fmt.Sscan(string(body), &number)
	return number, err == nil
}

// load is how many processes wanted a processor lately: the mean of one minute.
func load() string {
	content, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(content), " ")
	return one
}
