package queue

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// A child of the test binary is the server that is killed: see killable.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TIDEMARK_TEST_STORE"); dir != "" {
		s, err := newServer(dir, 0)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(s.ClientURL())
		select {}
	}
	os.Exit(m.Run())
}

func newServer(dir string, port int) (*server.Server, error) {
	o := &server.Options{
		ServerName: "test", Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir,
		JetStreamMaxStore: 1 << 30, JetStreamMaxMemory: 1 << 20, SyncAlways: true, NoSigs: true, NoLog: true,
	}
	if port < 0 {
		o.DontListen = true
	}
	s, err := server.NewServer(o)
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		return nil, fmt.Errorf("server is not ready")
	}
	return s, nil
}

// node is a NATS server in this process, with JetStream that syncs always. It
// can be restarted on its store.
type node struct {
	t   testing.TB
	dir string
	srv *server.Server
}

func newNode(t testing.TB) *node { return nodeAt(t, t.TempDir()) }

func nodeAt(t testing.TB, dir string) *node {
	t.Helper()
	n := &node{t: t, dir: dir}
	n.start()
	t.Cleanup(n.stop)
	return n
}

func (n *node) start() {
	n.t.Helper()
	s, err := newServer(n.dir, -1)
	if err != nil {
		n.t.Fatal(err)
	}
	n.srv = s
}

func (n *node) stop() { n.srv.Shutdown(); n.srv.WaitForShutdown() }

// restart stops the server, has do harm its store, and starts it again.
func (n *node) restart(do func(stream string)) {
	n.t.Helper()
	n.stop()
	do(n.stream())
	n.start()
}

// stream is the directory of the stream.
func (n *node) stream() string { return n.dir + "/jetstream/$G/streams/OUTBOX_lane" }

func (n *node) store() string { return n.dir + "/jetstream" }

func (n *node) connect() *nats.Conn {
	n.t.Helper()
	nc, err := nats.Connect("", nats.InProcessServer(n.srv))
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(nc.Close)
	return nc
}

// killable is a server in a process of its own, which ends with SIGKILL.
type killable struct {
	t   testing.TB
	dir string
	cmd *exec.Cmd
	nc  *nats.Conn
}

func (k *killable) start() {
	k.t.Helper()
	k.cmd = exec.Command(os.Args[0])
	k.cmd.Env = append(os.Environ(), "TIDEMARK_TEST_STORE="+k.dir)
	k.cmd.Stderr = os.Stderr
	out, err := k.cmd.StdoutPipe()
	if err == nil {
		err = k.cmd.Start()
	}
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(k.kill)
	url, err := bufio.NewReader(out).ReadString('\n')
	if err == nil {
		k.nc, err = nats.Connect(strings.TrimSpace(url))
	}
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(k.nc.Close)
}

func (k *killable) kill() {
	k.cmd.Process.Kill()
	k.cmd.Wait()
	if k.nc != nil {
		k.nc.Close()
	}
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// enable starts JetStream again, after a full disk stopped it.
func (n *node) enable() error {
	return n.srv.EnableJetStream(&server.JetStreamConfig{StoreDir: n.dir, MaxStore: 1 << 30, MaxMemory: 1 << 20, SyncAlways: true})
}
