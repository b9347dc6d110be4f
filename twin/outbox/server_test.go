package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

const device = "hannover01"

// node is a NATS server with JetStream that syncs always, and can be restarted
// on its store.
type node struct {
	t   testing.TB
	dir string // the agent's state directory
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
	s, err := server.NewServer(&server.Options{
		ServerName: "test", DontListen: true, JetStream: true, StoreDir: filepath.Join(n.dir, "jetstream"),
		JetStreamMaxStore: 1 << 30, JetStreamMaxMemory: 1 << 20, SyncAlways: true, NoSigs: true, NoLog: true,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		n.t.Fatal("server is not ready")
	}
	n.srv = s
}

func (n *node) stop() { n.srv.Shutdown(); n.srv.WaitForShutdown() }

func (n *node) restart() { n.stop(); n.start() }

func (n *node) connect(options ...nats.Option) *nats.Conn {
	n.t.Helper()
	nc, err := nats.Connect("", append(options, nats.InProcessServer(n.srv))...)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(nc.Close)
	return nc
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// cloud is the hub's side as the outbox sees it, in memory. Package hub has the
// real one, and the tests of both.
type cloud struct {
	mu    sync.Mutex
	lanes map[string]*held
}

// held is what the hub has of a lane.
type held struct {
	at     twin.Position
	bodies []string
	lost   []twin.Lost
}

func newCloud(t testing.TB, nc *nats.Conn) *cloud {
	t.Helper()
	c := &cloud{lanes: map[string]*held{}}
	if _, err := nc.Subscribe("up.*.messages", c.take); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cloud) take(m *nats.Msg) {
	b, err := twin.ReadBatch(m.Data)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.lanes[b.Lane]
	if l == nil {
		l = &held{}
		c.lanes[b.Lane] = l
	}
	at, taking := b.From, l.at == b.Prev
	for _, i := range b.Items {
		to := at + i.Count - 1
		// A batch of which the hub has a part goes on behind whole items.
		taking = taking || l.at.Epoch == b.Epoch && b.Prev.Epoch == b.Epoch && at == l.at.Seq+1
		if taking {
			if i.Reason != "" {
				l.lost = append(l.lost, twin.Lost{Epoch: b.Epoch, From: at, To: to, Reason: i.Reason})
			} else {
				l.bodies = append(l.bodies, string(i.Body))
			}
			l.at = twin.Position{Epoch: b.Epoch, Seq: to}
		}
		at = to + 1
	}
	data, _ := json.Marshal(twin.Standing{Position: l.at})
	m.Respond(data)
}

// has is what arrived in a lane.
func (c *cloud) has(lane string) (bodies []string, lost []twin.Lost) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.lanes[lane]; l != nil {
		return slices.Clone(l.bodies), slices.Clone(l.lost)
	}
	return nil, nil
}

func open(t testing.TB, n *node, hub *nats.Conn, config Config) *Outbox {
	t.Helper()
	config.Device, config.StateDir = device, n.dir
	if config.Warn == nil {
		config.Warn = func(err error) { t.Log("warning: ", err) }
	}
	o, err := Open(testContext(t), n.connect(), hub, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

func route(t testing.TB, o *Outbox, routes ...schema.Route) {
	t.Helper()
	if err := o.Route(testContext(t), routes); err != nil {
		t.Fatal(err)
	}
}

func module(n *node, name string) *nats.Conn {
	return n.connect(nats.CustomInboxPrefix(twin.Inbox(device, name)))
}

// ask sends one message of a module and returns the answer.
func ask(t testing.TB, nc *nats.Conn, module, name, body string) stamped {
	t.Helper()
	m, err := nc.Request(twin.Prefix(device, module)+".out."+name, []byte(body), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var a stamped
	if err := json.Unmarshal(m.Data, &a); err != nil {
		t.Fatalf("answer %s: %v", m.Data, err)
	}
	return a
}

// say sends one message that has to be stored.
func say(t testing.TB, nc *nats.Conn, module, name, body string) uint64 {
	t.Helper()
	a := ask(t, nc, module, name, body)
	if a.Error != nil || a.Seq == 0 {
		t.Fatalf("answer %+v", a)
	}
	return a.Seq
}

// sayAll sends messages as fast as it goes, and returns when all are stored.
func sayAll(t testing.TB, nc *nats.Conn, module string, bodies []string) {
	t.Helper()
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	for _, b := range bodies {
		if err := nc.PublishRequest(twin.Prefix(device, module)+".out.n", inbox, []byte(b)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range bodies {
		m, err := sub.NextMsg(30 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		var a stamped
		if err := json.Unmarshal(m.Data, &a); err != nil || a.Error != nil || a.Seq == 0 {
			t.Fatalf("answer %d of %d: %s", i+1, len(bodies), m.Data)
		}
	}
}

// until polls, generously.
func until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

func stats(t testing.TB, o *Outbox) Stats {
	t.Helper()
	s, err := o.Stats(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// laneOf is how a route's lane stands.
func laneOf(t testing.TB, o *Outbox, name string) LaneStats {
	t.Helper()
	for _, l := range stats(t, o).Lanes {
		if l.Route == name {
			return l
		}
	}
	return LaneStats{}
}

func drained(t testing.TB, o *Outbox) {
	t.Helper()
	until(t, "outbox is empty", func() bool { return stats(t, o).Pending == 0 })
}

func numbers(from, to int) []string {
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}
