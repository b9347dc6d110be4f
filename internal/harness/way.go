package harness

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/netns"
)

// Way leads from this machine's network to another one, packet by packet. Cut, it
// loses them all and tells nobody, as a mobile network without a signal does; no
// interface goes down, and no connection is reset. It carries IPv4.
type Way struct {
	t        testing.TB
	far      string       // address at the other end
	network  *os.File     // the other one
	cut      atomic.Bool  // every packet is lost
	delay    atomic.Int64 // nanoseconds that each packet takes
	attempts atomic.Int64 // see Attempts
	carrying sync.WaitGroup
}

// NewWay makes a way that is there until the test ends. It needs root.
func NewWay(t testing.TB) *Way {
	t.Helper()
	id := rand.Uint32()
	host := func(n uint32) string { return fmt.Sprintf("10.%d.%d.%d", 150+id>>16%50, id>>8&0xff, id&0xfc|n) }
	name, near := fmt.Sprintf("tm%08x", id), host(1)
	w := &Way{t: t, far: host(2)}
	var here, there *os.File
	err := w.makeNetwork()
	if err == nil {
		here, err = tunnel(name, near, w.far)
	}
	if err == nil {
		err = netns.Do(w.network, func() (err error) {
			there, err = tunnel(name, w.far, near)
			return errors.Join(err, netns.LoopbackUp())
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	w.carry(here, there)
	w.carry(there, here)
	t.Cleanup(func() {
		here.Close()
		there.Close()
		w.carrying.Wait()
		w.network.Close()
	})
	return w
}

// Cut has everything lost from now on, also what is under way.
func (w *Way) Cut() { w.cut.Store(true) }

// Mend has everything come through again.
func (w *Way) Mend() { w.cut.Store(false) }

// Delay has each packet take so long, in each direction.
func (w *Way) Delay(d time.Duration) { w.delay.Store(int64(d)) }

// Attempts counts the first packets of TCP connections, with their repetitions,
// that were sent from either end, lost or not.
func (w *Way) Attempts() int { return int(w.attempts.Load()) }

// Lead returns the host:port at the other end at which target, of this machine, is
// reached.
func (w *Way) Lead(target string) string {
	w.t.Helper()
	var listener net.Listener
	err := netns.Do(w.network, func() (err error) {
		listener, err = net.Listen("tcp", w.far+":0")
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go join(conn, target)
		}
	}()
	return listener.Addr().String()
}

// join connects what came to target, until either of them ends.
func join(conn net.Conn, target string) {
	defer conn.Close()
	behind, err := net.Dial("tcp", target)
	if err != nil {
		return // and so has the one that came
	}
	defer behind.Close()
	ended := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{conn, behind}, {behind, conn}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			ended <- struct{}{}
		}()
	}
	<-ended
}

// makeNetwork makes a network namespace, which is there while its file is open.
func (w *Way) makeNetwork() error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			w.network, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		}
		done <- err
	}()
	return <-done
}

// tunnel makes an interface whose packets are read from and written to the file, in
// the network of the thread that calls it.
func tunnel(name, own, peer string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	file := os.NewFile(uintptr(fd), name)
	for _, args := range [][]string{{"address", "add", own, "peer", peer, "dev", name}, {"link", "set", name, "up", "txqueuelen", "5000"}} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			file.Close()
			return nil, fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
	}
	return file, nil
}

// packet is one that is under way.
type packet struct {
	data []byte
	due  time.Time
}

func (w *Way) carry(from, to *os.File) {
	queue := make(chan packet, 1<<12)
	w.carrying.Go(func() {
		defer close(queue)
		buffer := make([]byte, 1<<16)
		for {
			n, err := from.Read(buffer)
			if err != nil {
				return
			}
			if begins(buffer[:n]) {
				w.attempts.Add(1)
			}
			select {
			case queue <- packet{append([]byte(nil), buffer[:n]...), time.Now().Add(time.Duration(w.delay.Load()))}:
			default: // as in a router
			}
		}
	})
	w.carrying.Go(func() {
		for p := range queue {
			time.Sleep(time.Until(p.due))
			if !w.cut.Load() {
				_, _ = to.Write(p.data) // an interface that is gone loses it
			}
		}
	})
}

// begins says whether a packet is TCP's first of a connection.
func begins(p []byte) bool {
	const syn, ack = 1 << 1, 1 << 4
	if len(p) < 20 || p[0]>>4 != 4 || p[9] != unix.IPPROTO_TCP {
		return false
	}
	header := int(p[0]&15) * 4
	return len(p) > header+13 && p[header+13]&(syn|ack) == syn
}
