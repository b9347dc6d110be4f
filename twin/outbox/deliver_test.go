package outbox

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// receiver is a module that takes messages, unless refuse says otherwise.
type receiver struct {
	mu     sync.Mutex
	got    []string
	seqs   []string
	refuse func(body string) *twin.Error
}

func receive(t testing.TB, n *node, to, input string, refuse func(string) *twin.Error) (*receiver, *nats.Conn) {
	t.Helper()
	r, nc := &receiver{refuse: refuse}, module(n, to)
	if _, err := nc.Subscribe(twin.Prefix(device, to)+".in."+input, func(m *nats.Msg) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.refuse != nil {
			if e := r.refuse(string(m.Data)); e != nil {
				data, _ := json.Marshal(twin.Answer{Error: e})
				m.Respond(data)
				return
			}
		}
		read, err := twin.ReadMessage(m.Header, m.Data)
		if err != nil || read.From != "sensor/n" || read.Epoch == "" || read.Time.IsZero() {
			t.Errorf("%+v, %v", read, err)
		}
		r.got, r.seqs = append(r.got, string(m.Data)), append(r.seqs, fmt.Sprint(read.Seq))
		m.Respond(nil)
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return r, nc
}

func (r *receiver) bodies() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// TestLocalDelivery needs no hub: messages wait for the module, come in order,
// and again while it refuses them.
func TestLocalDelivery(t *testing.T) {
	n := newNode(t)
	o := open(t, n, nil, Config{})
	route(t, o, toModule("local", "sensor/*", "insight/readings"))
	sayAll(t, module(n, "sensor"), "sensor", numbers(1, 30))
	until(t, "it says that nobody is there", func() bool { return laneOf(t, o, "local").LastError != "" })
	if l := laneOf(t, o, "local"); l.Pending != 30 || l.To != "insight/readings" || l.Age <= 0 {
		t.Errorf("%+v", l)
	}
	refused := 0
	r, _ := receive(t, n, "insight", "readings", func(body string) *twin.Error {
		if body == "5" && refused < 3 {
			refused++
			return &twin.Error{Code: twin.CodeBusy, Message: "not yet"}
		}
		return nil
	})
	drained(t, o)
	sayAll(t, module(n, "sensor"), "sensor", numbers(31, 40))
	drained(t, o)
	if got := r.bodies(); !slices.Equal(got, numbers(1, 40)) || !slices.Equal(r.seqs, numbers(1, 40)) || refused != 3 {
		t.Errorf("%v, %v, refused %d", got, r.seqs, refused)
	}
	if l := laneOf(t, o, "local"); l.Delivered != 40 || l.LastError != "" {
		t.Errorf("%+v", l)
	}
}

// TestLocalDeliveryGoesOn restarts: what was taken is not delivered again where
// the outbox was closed in order, and nothing is lost where its note of it is gone.
func TestLocalDeliveryGoesOn(t *testing.T) {
	n := newNode(t)
	o := open(t, n, nil, Config{})
	route(t, o, toModule("local", "sensor/*", "insight/readings"))
	r, nc := receive(t, n, "insight", "readings", nil)
	sayAll(t, module(n, "sensor"), "sensor", numbers(1, 20))
	drained(t, o)
	nc.Close()
	sayAll(t, module(n, "sensor"), "sensor", numbers(21, 30))
	o.Close()
	n.restart()
	o = open(t, n, nil, Config{})
	again, nc := receive(t, n, "insight", "readings", nil)
	drained(t, o)
	if got := append(r.bodies(), again.bodies()...); !slices.Equal(got, numbers(1, 30)) {
		t.Errorf("%v", got)
	}
	o.Close()
	nc.Close()
	for _, note := range []string{"", "noise", `{"epoch":"another","seq":7}`, `{"epoch":"` + laneOf(t, o, "local").Epoch + `","seq":7000}`} {
		if err := os.WriteFile(o.dir()+"/local/local.json", []byte(note), 0o600); err != nil {
			t.Fatal(err)
		}
		o = open(t, n, nil, Config{})
		third, nc := receive(t, n, "insight", "readings", nil)
		say(t, module(n, "sensor"), "sensor", "n", "31")
		until(t, "it is delivered", func() bool { return slices.Contains(third.bodies(), "31") })
		o.Close()
		nc.Close()
	}
}

// TestALocalQueueThatIsWipedIsTold removes what waited for a module, while nobody runs.
func TestALocalQueueThatIsWipedIsTold(t *testing.T) {
	n := newNode(t)
	o := open(t, n, nil, Config{})
	route(t, o, toModule("local", "sensor/*", "insight/readings"))
	_, nc := receive(t, n, "insight", "readings", nil)
	sayAll(t, module(n, "sensor"), "sensor", numbers(1, 10))
	drained(t, o)
	nc.Close()
	sayAll(t, module(n, "sensor"), "sensor", numbers(11, 20))
	o.Close()
	n.stop()
	if err := os.RemoveAll(o.jetstream()); err != nil {
		t.Fatal(err)
	}
	n.start()
	told := make(chan string, 100)
	o = open(t, n, nil, Config{Warn: func(err error) { told <- err.Error() }})
	r, nc := receive(t, n, "insight", "readings", nil)
	defer nc.Close()
	sayAll(t, module(n, "sensor"), "sensor", numbers(21, 30))
	drained(t, o)
	if got := r.bodies(); !slices.Equal(got, numbers(21, 30)) {
		t.Errorf("%v", got)
	}
	until(t, "it is told", func() bool {
		select {
		case text := <-told:
			return strings.Contains(text, "route local: its queue was removed")
		default:
			return false
		}
	})
}

// TestLocalTimeToLive drops what waited too long, and frees the disk.
func TestLocalTimeToLive(t *testing.T) {
	n := newNode(t)
	o := open(t, n, nil, Config{})
	short := toModule("local", "sensor/*", "insight/readings")
	short.TTL = schema.Duration(50 * time.Millisecond)
	route(t, o, short)
	sayAll(t, module(n, "sensor"), "sensor", numbers(1, 20))
	until(t, "they are dropped", func() bool { return laneOf(t, o, "local").Lost[twin.LostTTL] == 20 })
	l := laneOf(t, o, "local")
	if l.Pending != 0 || len(l.Ranges) != 1 || l.Ranges[0].From != 1 || l.Ranges[0].To != 20 {
		t.Errorf("%+v", l)
	}
}

// TestLocalRouteMoves changes where a route goes, to another module and to the
// hub, while messages wait.
func TestLocalRouteMoves(t *testing.T) {
	n := newNode(t)
	hub := newNode(t)
	c := newCloud(t, hub.connect())
	o := open(t, n, hub.connect(), Config{})
	route(t, o, toModule("r", "sensor/*", "absent/in"))
	sayAll(t, module(n, "sensor"), "sensor", numbers(1, 5))
	r, _ := receive(t, n, "insight", "in", nil)
	route(t, o, toModule("r", "sensor/*", "insight/in"))
	drained(t, o)
	route(t, o, toHub("r", "sensor/*"))
	sayAll(t, module(n, "sensor"), "sensor", numbers(6, 8))
	drained(t, o)
	if got := r.bodies(); !slices.Equal(got, numbers(1, 5)) {
		t.Errorf("%v", got)
	}
	if got, _ := c.has("r"); !slices.Equal(got, numbers(6, 8)) {
		t.Errorf("%v", got)
	}
	until(t, "the local queue is deleted", func() bool { return len(stats(t, o).Lanes) == 1 })
}
