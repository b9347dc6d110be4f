package hub

import "sync"

// Bounds of what waits to be stored. A device that is told to wait sends again;
// what it holds is on its own disk.
const (
	maxDeviceWaits = 16        // batches of one device
	maxDeviceBytes = 12 << 20  // bytes of them
	maxWaits       = 20_000    // batches of all devices
	maxWaitBytes   = 128 << 20 // bytes of them
	// From here on, in bytes, only a device that has nothing waiting gets in, so
	// that a few that send without end do not keep the others out.
	crowded = maxWaitBytes / 2
)

// backlog holds what devices sent until it is answered. Devices take turns: one
// that sends much delays another by one batch.
type backlog struct {
	some chan struct{} // holds a value when something may be there to take

	mu    sync.Mutex
	turn  []string               // devices with something to take
	lines map[string]*line       // by device
	all   struct{ n, bytes int } // not answered yet
}

// line is what one device sent.
type line struct {
	waiting  []*delivery // to be taken
	n, bytes int         // not answered yet
}

func newBacklog() *backlog {
	return &backlog{some: make(chan struct{}, 1), lines: map[string]*line{}}
}

// push reports whether there was room.
func (q *backlog) push(d *delivery) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[d.device]
	if q.all.n == maxWaits || q.all.bytes+len(d.raw) > maxWaitBytes || l != nil &&
		(q.all.bytes > crowded || l.n == maxDeviceWaits || l.bytes+len(d.raw) > maxDeviceBytes) {
		return false
	}
	if l == nil {
		l = &line{}
		q.lines[d.device] = l
	}
	if len(l.waiting) == 0 {
		q.turn = append(q.turn, d.device)
	}
	l.waiting = append(l.waiting, d)
	l.n, l.bytes = l.n+1, l.bytes+len(d.raw)
	q.all.n, q.all.bytes = q.all.n+1, q.all.bytes+len(d.raw)
	select {
	case q.some <- struct{}{}:
	default:
	}
	return true
}

// pop takes the next batch, nil when there is none. It counts until done.
func (q *backlog) pop() *delivery {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.turn) == 0 {
		return nil
	}
	device := q.turn[0]
	q.turn = q.turn[1:]
	l := q.lines[device]
	d := l.waiting[0]
	l.waiting[0] = nil
	if l.waiting = l.waiting[1:]; len(l.waiting) > 0 {
		q.turn = append(q.turn, device)
	}
	return d
}

// done says that a batch is answered.
func (q *backlog) done(d *delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[d.device]
	l.n, l.bytes = l.n-1, l.bytes-len(d.raw)
	q.all.n, q.all.bytes = q.all.n-1, q.all.bytes-len(d.raw)
	if l.n == 0 {
		delete(q.lines, d.device)
	}
}
