package sandbox

import (
	"encoding/json"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// spent is what the process had used at a moment.
type spent struct {
	at  time.Time
	cpu time.Duration
}

// bound puts this process under its limits: the runtime's, which make it
// collect garbage in time; the watcher, which gives a clear error; and the
// kernel's, which hold when the watcher does not get to run.
func (c *child) bound() {
	l := c.limits
	// The kernel, short of memory, should end this process before the agent and
	// the modules. It may not let us say so; that is no reason to stop.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	debug.SetGCPercent(400) // few evaluations ever need a collection
	debug.SetMemoryLimit(l.Memory / 8 * 7)
	debug.SetMaxStack(int(l.Memory / 4))
	// Not RLIMIT_AS: Go reserves address space by the gigabyte. What can be
	// written to is what counts.
	setLimit(unix.RLIMIT_DATA, mapped()+uint64(l.Memory)+256<<20)
	setLimit(unix.RLIMIT_CORE, 0)
	setLimit(unix.RLIMIT_FSIZE, 0)
	c.begin()
	go c.watch()
}

// mapped is how much writable memory the process has by now; 0 where the kernel
// does not say.
func mapped() uint64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b)) // size resident shared text lib data dirty
	if len(fields) < 6 {
		return 0
	}
	pages, err := strconv.ParseUint(fields[5], 10, 64)
	if err != nil {
		return 0
	}
	return pages * uint64(os.Getpagesize())
}

// setLimit lowers a limit of the kernel's. One that cannot be set leaves the
// watcher.
func setLimit(resource int, n uint64) {
	_ = unix.Setrlimit(resource, &unix.Rlimit{Cur: n, Max: n})
}

// begin starts the clocks for one device.
func (c *child) begin() {
	now := used()
	c.mu.Lock()
	c.start = now
	c.mu.Unlock()
	seconds := uint64((now.cpu+c.limits.CPU)/time.Second) + 2
	_ = unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: seconds, Max: unix.RLIM_INFINITY})
}

// watch ends the process when it has used more than it may.
func (c *child) watch() {
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	for range time.Tick(5 * time.Millisecond) {
		metrics.Read(sample)
		now := used()
		c.mu.Lock()
		start := c.start
		c.mu.Unlock()
		switch {
		case int64(sample[0].Value.Uint64()-sample[1].Value.Uint64()) > c.limits.Memory:
			c.abort(c.limits.tooMuch())
		case now.cpu-start.cpu > c.limits.CPU:
			c.abort(c.limits.tooBusy())
		case now.at.Sub(start.at) > c.limits.Wall:
			c.abort(c.limits.tooLong())
		}
	}
}

// abort says why and ends the process at once.
func (c *child) abort(err error) {
	m := message{End: true}
	m.Invalid, m.Fault = fromError(err)
	b, err := json.Marshal(m)
	if err != nil {
		os.Exit(1)
	}
	c.mu.Lock() // and never unlock: nothing follows
	if writeFrame(c.out, b) != nil || c.out.Flush() != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// used is what the process has used by now.
func used() spent {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail with these arguments
	return spent{at: time.Now(), cpu: time.Duration(u.Utime.Nano() + u.Stime.Nano())}
}
