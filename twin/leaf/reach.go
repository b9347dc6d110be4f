package leaf

import (
	"context"
	"math/rand/v2"
	"net"
	"time"
)

// How long an attempt to connect to the hub may take. Of a quick one TCP sends one
// packet, and so it says within a second that the way is free again; there is always
// one besides that has the time that a satellite needs.
const (
	quickLimit   = 900 * time.Millisecond
	patientLimit = 10 * time.Second
)

// attempt is what became of one.
type attempt struct {
	conn    net.Conn
	err     error
	patient bool
}

// reach connects to the hub. It begins an attempt each so often, whatever becomes of
// those before, and returns the first that comes about. It never gives up: its error is
// that of ctx. say is told of failures.
func reach(ctx context.Context, hub string, every time.Duration, say func(error)) (net.Conn, error) {
	ctx, end := context.WithCancel(ctx)
	defer end() // of the other attempts as well
	outcomes := make(chan attempt)
	next := time.NewTimer(0)
	defer next.Stop()
	patient := false // one is under way
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-next.C:
			// Devices that lost the hub together do not come back together.
			next.Reset(every*3/4 + rand.N(every/2))
			a := attempt{patient: !patient}
			patient = true
			go func() {
				a.conn, a.err = dial(ctx, hub, a.patient)
				select {
				case outcomes <- a:
				case <-ctx.Done():
					if a.err == nil {
						a.conn.Close()
					}
				}
			}()
		case a := <-outcomes:
			if a.err == nil {
				return a.conn, nil
			}
			say(a.err)
			patient = patient && !a.patient
		}
	}
}

func dial(ctx context.Context, hub string, patient bool) (net.Conn, error) {
	// A resolver of its own: otherwise attempts that overlap would wait for the
	// same question to a name server, which is repeated after 5 s.
	d := net.Dialer{Timeout: quickLimit, KeepAlive: -1, Resolver: &net.Resolver{}}
	if patient {
		d.Timeout = patientLimit
	}
	return d.DialContext(ctx, "tcp", hub)
}

// pause waits, and says whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
