package hub

import (
	"fmt"
	"sync"
	"time"
)

// The server complains about each wrong login and each violation, and whoever
// reaches its port can cause as many as they like: only so many are passed on.
const (
	complaints = 30 // in each
	period     = time.Minute
)

// log is the server's logger: it passes on what a person should know.
type log struct {
	warn  func(error)
	fatal chan error // holds the first reason why the server does not start

	mu    sync.Mutex
	since time.Time // when the period began
	said  int       // in the period, what was not passed on included
}

func newServerLog(warn func(error)) *log {
	return &log{warn: warn, fatal: make(chan error, 1)}
}

func (l *log) say(format string, v []any) {
	l.mu.Lock()
	missed := 0
	if time.Since(l.since) > period {
		missed = max(0, l.said-complaints)
		l.since, l.said = time.Now(), 0
	}
	l.said++
	pass := l.said <= complaints
	l.mu.Unlock()
	if missed > 0 {
		l.warn(fmt.Errorf("hub server: %d more complaints were not shown", missed))
	}
	if pass {
		l.warn(fmt.Errorf("hub server: "+format, v...))
	}
}

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
