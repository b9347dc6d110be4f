package hub

import (
	"fmt"
	"sync"
	"time"
)

// quiet is how long the same complaint of the server is not repeated: a device
// that is not admitted tries again for ever.
const quiet = time.Minute

// log is the server's logger: it passes on what a person should know, each
// thing not too often.
type log struct {
	warn  func(error)
	fatal chan error // holds the first reason why the server does not start

	mu   sync.Mutex
	said map[string]time.Time // by format, so that the server's source bounds it
}

func newServerLog(warn func(error)) *log {
	return &log{warn: warn, fatal: make(chan error, 1), said: map[string]time.Time{}}
}

func (l *log) say(format string, v []any) {
	l.mu.Lock()
	last, again := l.said[format]
	repeat := again && time.Since(last) < quiet
	if !repeat {
		l.said[format] = time.Now()
	}
	l.mu.Unlock()
	if !repeat {
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
