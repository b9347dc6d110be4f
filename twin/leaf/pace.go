package leaf

import (
	"fmt"
	"time"
)

// What updates of one twin may write to the disk. Flash wears out by pages
// written, and a module that reports without end would wear out the device's: so
// a module that is over its burst is answered at this rate, many updates with one
// write, which is at most 2 GB a day. Updates that change nothing write nothing.
const (
	paceBurst  = 10000 // pages that it may write at once, once rested
	paceRate   = 5     // pages a second, for ever
	pageSize   = 4096  // bytes
	paceLookAt = 100 * time.Millisecond
)

// pace counts the pages that one twin wrote.
type pace struct {
	pages float64 // written, less what time has forgiven
	at    time.Time
}

// spend counts a write of this many bytes.
func (p *pace) spend(bytes int, now time.Time) {
	p.rest(now)
	p.pages += float64(1 + bytes/pageSize)
}

// wait is how long the next write has to wait.
func (p *pace) wait(now time.Time) time.Duration {
	p.rest(now)
	over := p.pages - paceBurst
	if over <= 0 {
		return 0
	}
	return time.Duration(over / paceRate * float64(time.Second))
}

func (p *pace) rest(now time.Time) {
	p.pages = max(0, p.pages-paceRate*now.Sub(p.at).Seconds())
	p.at = now
}

// slow waits until the twin may be written again. What comes meanwhile waits with
// it, to be written together.
func (s *service) slow() {
	for wait := s.owed(); wait > 0 && !s.conn.IsClosed(); wait = s.owed() {
		if !s.warned {
			s.warned = true
			s.twins.warn(fmt.Errorf("module %s updates its twin so often that it would wear out the disk: from now on it is answered a few times a second", s.module))
		}
		time.Sleep(min(wait, paceLookAt))
	}
}

func (s *service) owed() time.Duration {
	s.pacing.Lock()
	defer s.pacing.Unlock()
	return s.pace.wait(time.Now())
}

func (s *service) wrote(bytes int) {
	s.pacing.Lock()
	defer s.pacing.Unlock()
	s.pace.spend(bytes, time.Now())
}
