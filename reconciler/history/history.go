// Package history is what a device remembers of what it ran: the events of its
// deployments, and the definitions of earlier good revisions.
//
// Neither is needed to run modules. A file that is broken is set aside and
// named by the error of the call that met it, and the device goes on without.
//
//	history.json      the newest events
//	revisions/<commit>.json   a definition that passed its gate
//
// Both are bounded: a device's disk does not fill from what it remembers.
package history

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
)

// Bounds of the events.
const (
	maxEvents     = 200
	maxEventBytes = 256 << 10 // of the file
	maxReason     = 2 << 10   // bytes of Event.Reason
	maxOutput     = 4 << 10   // bytes of Event.Output
)

const eventsFile = "history.json"

// Log is the device's history. Its methods may be called concurrently.
type Log struct {
	path string

	mu     sync.Mutex
	events []schema.Event // oldest first
}

// Open reads the history below dir. The Log is usable also with an error, which
// says what was set aside, and is empty then.
func Open(dir string) (*Log, error) {
	l := &Log{path: filepath.Join(dir, eventsFile)}
	err := read(l.path, maxEventBytes, &l.events)
	if err != nil {
		l.events = nil
		return l, fmt.Errorf("read the history: %w", err)
	}
	return l, nil
}

// Add appends an event, and forgets the oldest where there are too many. When
// it returns nil a power cut cannot take it back; with an error the event is
// known until the agent ends, and is written with the next one.
func (l *Log) Add(e schema.Event) error {
	e.Reason, e.Output = head(e.Reason, maxReason), tail(e.Output, maxOutput)
	l.mu.Lock()
	defer l.mu.Unlock()
	events := append(slices.Clone(l.events), e)
	for {
		events = events[max(0, len(events)-maxEvents):]
		b, err := json.Marshal(events)
		if err != nil {
			return fmt.Errorf("write the history: %w", err)
		}
		if len(b) <= maxEventBytes-durable.SealBytes {
			break
		}
		events = events[1+len(events)/16:]
	}
	l.events = events
	if err := write(l.path, events); err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	return nil
}

// Events are all that are remembered, oldest first.
func (l *Log) Events() []schema.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// Ports, sizes and durations differ between two refusals of one cause.
var numbers = regexp.MustCompile(`[0-9]+`)

// Knows reports whether the newest event of e's revision says the same as e: an
// agent that starts again refuses again, and that is no news.
func (l *Log) Knows(e schema.Event) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, was := range slices.Backward(l.events) {
		if was.Revision.Commit == e.Revision.Commit {
			return was.Kind == e.Kind && was.Module == e.Module && plain(was.Reason) == plain(head(e.Reason, maxReason))
		}
	}
	return false
}

func plain(reason string) string { return numbers.ReplaceAllString(reason, "0") }

// head is the beginning of s, at most most bytes, cut between characters.
func head(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// tail is the end of s, at most most bytes, cut between characters.
func tail(s string, most int) string {
	from := max(0, len(s)-most)
	for from < len(s) && !utf8.RuneStart(s[from]) {
		from++
	}
	return s[from:]
}
