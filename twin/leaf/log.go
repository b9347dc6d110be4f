package leaf

import (
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"
)

// quiet is how long the same complaint of the server is not repeated: a module
// with a wrong seed complains four times a second, for ever.
const quiet = time.Minute

// log passes on what the server and our own connections say that a person
// should know, each thing not too often. It is the server's logger.
type log struct {
	warn  func(error)
	fatal chan error // holds the first reason why the server does not start

	refusals *refusals // by the hub, which are said here and nowhere else

	mu   sync.Mutex
	said map[string]time.Time // by format without the connection that it is about
}

// maxSaid bounds the different things that are said within the time of quiet.
const maxSaid = 256

func newLog(warn func(error)) *log {
	return &log{warn: warn, fatal: make(chan error, 1), refusals: newRefusals(), said: map[string]time.Time{}}
}

func (l *log) say(format string, v []any) {
	// The server puts "address - cid:7 - " before what a connection did.
	what := format
	for _, part := range strings.Split(format, " - ") {
		what = part
	}
	l.mu.Lock()
	now := time.Now()
	maps.DeleteFunc(l.said, func(_ string, last time.Time) bool { return now.Sub(last) >= quiet })
	_, repeat := l.said[what]
	repeat = repeat || len(l.said) >= maxSaid
	if !repeat {
		l.said[what] = now
	}
	l.mu.Unlock()
	if !repeat {
		l.warn(fmt.Errorf(format, v...))
	}
}

// begin forgets why a server before this one ended.
func (l *log) begin() {
	select {
	case <-l.fatal:
	default:
	}
}

// Fatalf is what the server calls in place of ending the process, since the
// logger is ours.
func (l *log) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Errorf(format, v...):
	default:
		l.say("leaf server: "+format, v)
	}
}

func (l *log) Errorf(format string, v ...any) {
	if isRefusal(fmt.Sprintf(format, v...)) {
		l.refusals.tell()
		l.say("%w", []any{errRefused})
		return
	}
	l.say("leaf server: "+format, v)
}

func (l *log) Warnf(format string, v ...any) { l.say("leaf server: "+format, v) }
func (l *log) Noticef(string, ...any)        {}
func (l *log) Debugf(string, ...any)         {}
func (l *log) Tracef(string, ...any)         {}
