package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/twin"
)

const device = "hannover01"

// node is a NATS server with JetStream that syncs always, and can be restarted
// on its store.
type node struct {
	t   testing.TB
	dir string
	srv *server.Server
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir()}
	n.start()
	t.Cleanup(n.stop)
	return n
}

func (n *node) start() {
	n.t.Helper()
	s, err := server.NewServer(&server.Options{
		ServerName: "test", DontListen: true, JetStream: true, StoreDir: n.dir,
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

// upstream is the hub's side as the outbox sees it: the stream, and the answer
// to "where to resume". Package hub has the real one, and the tests of both.
type upstream struct {
	t      testing.TB
	nc     *nats.Conn
	stream jetstream.Stream
	answer func(twin.Resume) twin.Resume // changes the answer; nil leaves it
}

func newUpstream(t testing.TB, n *node) *upstream {
	t.Helper()
	u := &upstream{t: t, nc: n.connect()}
	js, err := jetstream.New(u.nc)
	if err != nil {
		t.Fatal(err)
	}
	u.stream, err = js.CreateStream(testContext(t), jetstream.StreamConfig{
		Name: "UP", Subjects: []string{"up.*.out.>", "up.*.dropped"}, NoAck: true, AllowAtomicPublish: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.nc.Subscribe("up.*.resume", u.resume); err != nil {
		t.Fatal(err)
	}
	if err := u.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return u
}

func (u *upstream) resume(m *nats.Msg) {
	var want twin.Await
	json.Unmarshal(m.Data, &want) // no body wants nothing
	r := u.place()
	for start := time.Now(); want.Epoch != "" && (r.Epoch != want.Epoch || r.Seq < want.Seq) && time.Since(start) < twin.AwaitTime; r = u.place() {
		time.Sleep(time.Millisecond)
	}
	if u.answer != nil {
		r = u.answer(r)
	}
	data, _ := json.Marshal(r)
	m.Respond(data)
}

func (u *upstream) place() (r twin.Resume) {
	if last, err := u.stream.GetLastMsgForSubject(context.Background(), "up."+device+".>"); err == nil {
		seq, _ := strconv.ParseUint(last.Header.Get(twin.HeaderSeq), 10, 64)
		r = twin.Resume{Epoch: last.Header.Get(twin.HeaderEpoch), Seq: seq, Last: last.Sequence}
	}
	return r
}

// held is everything in the hub's stream, in order.
func (u *upstream) held() []*jetstream.RawStreamMsg {
	u.t.Helper()
	info, err := u.stream.Info(testContext(u.t))
	if err != nil {
		u.t.Fatal(err)
	}
	var out []*jetstream.RawStreamMsg
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && seq > 0; seq++ {
		m, err := u.stream.GetMsg(testContext(u.t), seq)
		if err != nil {
			u.t.Fatalf("message %d of the hub: %v", seq, err)
		}
		out = append(out, m)
	}
	return out
}

// covered checks that messages and dropped ranges of each epoch follow each
// other without a hole and without overlap, and returns the bodies.
func (u *upstream) covered() (bodies []string, dropped []twin.Dropped) {
	u.t.Helper()
	at := map[string]uint64{}
	for _, m := range u.held() {
		epoch := m.Header.Get(twin.HeaderEpoch)
		seq, err := strconv.ParseUint(m.Header.Get(twin.HeaderSeq), 10, 64)
		if err != nil {
			u.t.Fatalf("message %d: %v", m.Sequence, err)
		}
		from := seq
		if m.Subject == "up."+device+".dropped" {
			var d twin.Dropped
			if err := json.Unmarshal(m.Data, &d); err != nil {
				u.t.Fatal(err)
			}
			from = d.From
			if n := len(dropped); n > 0 && dropped[n-1].Epoch == d.Epoch && dropped[n-1].Reason == d.Reason && dropped[n-1].To+1 == d.From {
				dropped[n-1].To = d.To // how a range is cut depends on when it was read
			} else {
				dropped = append(dropped, d)
			}
		} else {
			bodies = append(bodies, string(m.Data))
		}
		if last, known := at[epoch]; known && from != last+1 {
			u.t.Fatalf("message %d of the hub: sequence %d of epoch %s follows %d", m.Sequence, from, epoch, last)
		}
		at[epoch] = seq
	}
	return bodies, dropped
}

func open(t testing.TB, local, hub *nats.Conn, config Config) *Outbox {
	t.Helper()
	config.Device = device
	if config.Warn == nil {
		config.Warn = func(err error) { t.Log("warning: ", err) }
	}
	o, err := Open(testContext(t), local, hub, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	return o
}

func module(n *node, name string) *nats.Conn {
	return n.connect(nats.CustomInboxPrefix(twin.Inbox(device, name)))
}

// say sends one message of a module and returns its sequence in the outbox.
func say(t testing.TB, nc *nats.Conn, module, name, body string) uint64 {
	t.Helper()
	m, err := nc.Request(twin.Prefix(device, module)+".out."+name, []byte(body), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var a stamped
	if err := json.Unmarshal(m.Data, &a); err != nil || a.Error != nil || a.Seq == 0 {
		t.Fatalf("answer %s: %v", m.Data, err)
	}
	return a.Seq
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

func drained(t testing.TB, o *Outbox) {
	t.Helper()
	until(t, "outbox is empty", func() bool {
		s, err := o.Stats(testContext(t))
		return err == nil && s.Pending == 0
	})
}

func numbers(from, to int) []string {
	var out []string
	for i := from; i <= to; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}
