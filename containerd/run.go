package containerd

import (
	"context"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// run is what is known of the process of a running container.
type run struct {
	pid      int
	start    time.Duration // after the boot
	met      time.Time     // when this Runtime first knew of it
	attached bool          // Attach has been told, or need not be
	swept    bool          // no command of an earlier agent is in it
}

// meet gets to know running containers: when they started, and, where an
// earlier agent started them, it tells Attach. records and observed go
// together; looked is when the looking began.
func (r *Runtime) meet(ctx context.Context, looked time.Time, records []listed, observed []schema.Container) {
	for _, i := range r.know(looked, len(records), observed) {
		c := records[i]
		if c.ours && c.record.network == schema.NetworkNone && r.Attach != nil {
			if err := r.Attach(ctx, c.record.module, observed[i].PID); err != nil {
				continue // the next look tries again
			}
		}
		r.mark(observed[i].ID, observed[i].PID)
	}
}

// know brings r.met up to date, sets StartedAt of what runs, and returns the
// indices of those among the first n that are not attached.
func (r *Runtime) know(looked time.Time, n int, observed []schema.Container) (strange []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setBoot(time.Now())
	runs := make(map[string]run, len(observed))
	for id, known := range r.met {
		if known.met.After(looked) { // started while we looked
			runs[id] = known
		}
	}
	for i := range observed {
		c := &observed[i]
		if c.State != schema.StateRunning && c.State != schema.StatePaused || c.PID == 0 {
			continue
		}
		known, ok := r.met[c.ID]
		if !ok || known.pid != c.PID {
			start, err := processStart(c.PID)
			if err != nil {
				continue // it ended just now
			}
			known = run{pid: c.PID, start: start, met: looked}
		}
		c.StartedAt = startTime(c.StartedAt, r.boot.Add(known.start))
		if !known.attached && i < n {
			strange = append(strange, i)
		}
		runs[c.ID] = known
	}
	r.met = runs
	return strange
}

// mark records that Attach knows the process of the container.
func (r *Runtime) mark(id string, pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.met[id]; ok && known.pid == pid {
		known.attached = true
		r.met[id] = known
	}
}

// made remembers a process that this Runtime made and has told Attach of.
func (r *Runtime) made(id string, pid int) {
	start, err := processStart(pid)
	if err != nil {
		return // it has ended already; Observe will say how
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.met[id] = run{pid: pid, start: start, met: time.Now(), attached: true, swept: true}
}

// sweep calls clean, once for each process that an earlier agent started.
func (r *Runtime) sweep(id string, pid int, clean func()) {
	r.mu.Lock()
	known, ok := r.met[id]
	strange := ok && known.pid == pid && !known.swept
	if strange {
		known.swept = true
		r.met[id] = known
	}
	r.mu.Unlock()
	if strange {
		clean()
	}
}

// hasMade reports whether this Runtime made the process of the container.
func (r *Runtime) hasMade(id string, pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.met[id]
	return ok && known.pid == pid && known.attached
}

// startTime is when a process started: as its label says, which never differs
// from one look to the next, unless the clock was set since. A device without
// a battery for its clock starts its modules in 1970 and then learns the time.
func startTime(label, derived time.Time) time.Time {
	if d := derived.Sub(label); d > -launchTimeout && d < launchTimeout {
		return label
	}
	return derived.Round(time.Second).UTC()
}

// setBoot follows the wall clock when it is set, and only then: start times
// must not differ from one look to the next by the time between two readings.
func (r *Runtime) setBoot(now time.Time) {
	boot := bootTime(now)
	if d := boot.Sub(r.boot); d > 2*time.Second || d < -2*time.Second {
		r.boot = boot.Round(0) // without its monotonic reading
	}
}
