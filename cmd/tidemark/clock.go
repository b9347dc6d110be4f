package main

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/schema"
)

// clockSlack is how far a clock may step back, when it is set right, without
// being called wrong.
const clockSlack = time.Minute

// wallClock judges the device's wall clock. Nothing is decided by it: a person
// is told how far the times in reports and logs can be believed.
type wallClock struct {
	synchronized func() bool // whether something sets it, as the kernel knows

	mu      sync.Mutex
	written time.Time // newest time that the device has written down
}

// wrote notes a time that the device has written down.
func (c *wallClock) wrote(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at.After(c.written) {
		c.written = at
	}
}

// judge says whether now can be the time, given the newest commit's. Its words do
// not change from one moment to the next: each change is reported.
func (c *wallClock) judge(now, commit time.Time) schema.ClockReport {
	c.mu.Lock()
	written := c.written
	c.mu.Unlock()
	switch {
	case now.Add(clockSlack).Before(commit):
		return schema.ClockReport{Why: "it is earlier than the newest commit, of " + commit.UTC().Format(time.RFC3339)}
	case now.Add(clockSlack).Before(written):
		return schema.ClockReport{Why: fmt.Sprintf("it is earlier than %s, which this device has written down", written.UTC().Format(time.RFC3339))}
	case !c.synchronized():
		return schema.ClockReport{Why: "nothing sets it: the kernel calls it unsynchronized"}
	}
	return schema.ClockReport{Trusted: true}
}

// kernelSynchronized asks the kernel whether something sets the clock.
func kernelSynchronized() bool {
	var t unix.Timex // asks, and sets nothing
	state, err := unix.Adjtimex(&t)
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}
