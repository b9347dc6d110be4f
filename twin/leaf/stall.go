package leaf

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// A way that loses everything for a while, and resets no connection, leaves TCP
// waiting twice as long before each new attempt: after 20 s without a signal it
// uses the way again 5 to 10 s after it is back. So, while what is sent is not
// answered and the kernel repeats it in vain, watchStall knocks at the hub anew;
// once a new connection comes about and the old one is still silent, it ends the old
// one, and the server links again. A hub that is slow is not taken for that: its
// kernel acknowledges what ours sends.
const (
	stallLook  = time.Second            // between looks, while the link answers
	stallKnock = 200 * time.Millisecond // between attempts, while it does not
	stallAfter = time.Second            // of silence, from which on it does not
	knockLimit = 900 * time.Millisecond // for an attempt: one packet each
	stallTries = 2                      // repetitions by the kernel that were in vain
)

// watchStall runs until ctx ends.
func (l *Leaf) watchStall(ctx context.Context) {
	var s stall
	timer := time.NewTimer(stallLook)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		timer.Reset(stallLook)
		hub := linked(l.server)
		if hub == nil || !s.silent(hub, time.Now()) || !repeats(hub.Port) {
			continue
		}
		timer.Reset(stallKnock)
		if s.open.Load() == hub.ID {
			// A failure says that it has ended by itself.
			_ = l.server.DisconnectClientByID(hub.ID)
			continue
		}
		l.running.Go(func() { s.knock(ctx, hub) })
	}
}

// linked is the connection to the hub; nil when there is none.
func linked(s *server.Server) *server.LeafInfo {
	z, err := s.Leafz(nil)
	if err != nil || len(z.Leafs) == 0 {
		return nil
	}
	return z.Leafs[0]
}

// stall is what is known of the silence of a link.
type stall struct {
	id       uint64        // of the connection
	in, out  int64         // its counts when it was last heard
	heard    time.Time     // when that was, or when it had nothing to answer
	open     atomic.Uint64 // the connection during whose silence the hub was reached by another
	knocking atomic.Int64  // attempts under way
}

// silent says whether the hub has not answered for a while what it was sent.
func (s *stall) silent(hub *server.LeafInfo, now time.Time) bool {
	if hub.ID != s.id || hub.InMsgs != s.in || hub.OutMsgs == s.out {
		s.id, s.in, s.out, s.heard = hub.ID, hub.InMsgs, hub.OutMsgs, now
		s.open.Store(0)
		return false
	}
	return now.Sub(s.heard) >= stallAfter
}

// knock tries whether the way to the hub is free.
func (s *stall) knock(ctx context.Context, hub *server.LeafInfo) {
	if s.knocking.Add(1) <= int64(knockLimit/stallKnock)+1 {
		dialer := net.Dialer{Timeout: knockLimit}
		if conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(hub.IP, strconv.Itoa(hub.Port))); err == nil {
			conn.Close()
			s.open.Store(hub.ID)
		}
	}
	s.knocking.Add(-1)
}

// repeats says whether the kernel repeats in vain what it sent over a connection to
// this port.
func repeats(port int) bool {
	for _, table := range []string{"tcp", "tcp6"} {
		file, err := os.Open("/proc/self/net/" + table)
		if err != nil {
			continue // no IPv6, say
		}
		found := repeatsIn(file, port)
		file.Close()
		if found {
			return true
		}
	}
	return false
}

// repeatsIn reads the kernel's table (proc_net_tcp.txt in its documentation): number,
// local and remote address, state, queues, timer, repetitions, all hexadecimal.
func repeatsIn(table io.Reader, port int) bool {
	const established = "01"
	remote := fmt.Sprintf(":%04X", port)
	for lines := bufio.NewScanner(table); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 7 || !strings.HasSuffix(fields[2], remote) || fields[3] != established {
			continue
		}
		if tries, err := strconv.ParseUint(fields[6], 16, 32); err == nil && tries >= stallTries {
			return true
		}
	}
	return false
}
