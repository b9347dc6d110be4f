package leaf

import (
	"fmt"
	"sync"
	"time"
)

// quiet is how long the same complaint of the server is not repeated: a module
// with a wrong seed complains four times a second, for ever.
const quiet = time.Minute

// serverLog passes on what the server says that a person should know.
type serverLog struct {
	warn  func(error)
	fatal chan error // holds the first reason why the server does not start

	mu   sync.Mutex
	said map[string]time.Time // by format, so that it is bounded by the server's source
}

func newServerLog(warn func(error)) *serverLog {
	return &serverLog{warn: warn, fatal: make(chan error, 1), said: map[string]time.Time{}}
}

func (l *serverLog) say(format string, v []any) {
	l.mu.Lock()
	last, ok := l.said[format]
	repeat := ok && time.Since(last) < quiet
	if !repeat {
		l.said[format] = time.Now()
	}
	l.mu.Unlock()
	if !repeat {
		l.warn(fmt.Errorf("leaf server: "+format, v...))
	}
}

// Fatalf is what the server calls in place of ending the process, since the
// logger is ours.
func (l *serverLog) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Errorf(format, v...):
	default:
		l.say(format, v)
	}
}

func (l *serverLog) Errorf(format string, v ...any) { l.say(format, v) }
func (l *serverLog) Warnf(format string, v ...any)  { l.say(format, v) }
func (l *serverLog) Noticef(string, ...any)         {}
func (l *serverLog) Debugf(string, ...any)          {}
func (l *serverLog) Tracef(string, ...any)          {}
