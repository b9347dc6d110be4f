package hub

import (
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"
)

// The server complains about each wrong login and each violation, and whoever
// reaches its port can cause as many as they like: only so many are passed on,
// each once. A revoked device tries again twice a second, for ever; it must not
// drown what is said about others.
const (
	complaints = 30 // different ones in each
	period     = time.Minute
)

// log is the server's logger: it passes on what a person should know.
type log struct {
	warn  func(error)
	fatal chan error // holds the first reason why the server does not start

	mu     sync.Mutex
	since  time.Time       // when the period began
	said   map[string]bool // passed on in the period, without the connection
	missed int             // not passed on in the period
}

func newServerLog(warn func(error)) *log {
	return &log{warn: warn, fatal: make(chan error, 1)}
}

func (l *log) say(format string, v []any) {
	text := fmt.Sprintf(format, v...)
	what := aboutWhom.ReplaceAllString(text, "")
	l.mu.Lock()
	missed := 0
	if time.Since(l.since) > period {
		missed = l.missed
		l.since, l.said, l.missed = time.Now(), map[string]bool{}, 0
	}
	pass := !l.said[what] && len(l.said) < complaints
	if pass {
		l.said[what] = true
	} else {
		l.missed++
	}
	l.mu.Unlock()
	if missed > 0 {
		l.warn(fmt.Errorf("hub server: %d more complaints, most like those above, were not shown", missed))
	}
	if pass {
		l.warn(errors.New("hub server: " + text))
	}
}

// aboutWhom is what the server puts before a complaint about a connection: its
// address and number, "127.0.0.1:46052 - lid:51 - ", and other ones each time.
var aboutWhom = regexp.MustCompile(`^\S+ - \w+:\d+ - `)

// Fatalf is what the server calls in place of ending the process, since the
// logger is ours.
func (l *log) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Errorf(format, v...):
	default:
		l.say(format, v)
	}
}

func (l *log) Errorf(format string, v ...any) { l.say(format, v) }
func (l *log) Warnf(format string, v ...any)  { l.say(format, v) }
func (l *log) Noticef(string, ...any)         {}
func (l *log) Debugf(string, ...any)          {}
func (l *log) Tracef(string, ...any)          {}
