package hub

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

func code(err error) int {
	var e *twin.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// TestCall calls a method of a device over its leaf link.
func TestCall(t *testing.T) {
	g := newGadget(t, "a")
	c := newCloud(t, g.entry())
	nc := c.operator()
	ping := Method{Device: "a", Name: "ping"}
	began := time.Now()
	if _, err := Call(testContext(t), nc, ping, nil); code(err) != twin.CodeOffline || time.Since(began) > 10*time.Second {
		t.Errorf("not linked: %v after %s", err, time.Since(began))
	}
	g.link(c)
	if err := g.leaf.Handle("ping", func(_ context.Context, body []byte) ([]byte, error) { return append(body, " pong"...), nil }); err != nil {
		t.Fatal(err)
	}
	if err := g.leaf.Handle("fail", func(context.Context, []byte) ([]byte, error) {
		return nil, &twin.Error{Code: twin.CodeBusy, Message: "not now"}
	}); err != nil {
		t.Fatal(err)
	}
	until(t, "the device answers", func() bool {
		answer, err := Call(testContext(t), nc, ping, []byte("ping"))
		if err == nil && string(answer) != "ping pong" {
			t.Fatalf("%s", answer)
		}
		return err == nil
	})
	if _, err := Call(testContext(t), nc, Method{Device: "a", Name: "fail"}, nil); code(err) != twin.CodeBusy {
		t.Errorf("a method's own refusal is %v", err)
	}
	for _, m := range []Method{{Device: "a", Name: "*"}, {Device: "*", Name: "ping"}, {Device: "a", Module: ">", Name: "ping"}, {Device: "a"}, {Name: "ping"}} {
		if _, err := Call(testContext(t), nc, m, nil); err == nil || code(err) != 0 {
			t.Errorf("%+v is no method: %v", m, err)
		}
	}
	g.proxy.cut()
	until(t, "a cut device is offline", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := Call(ctx, nc, ping, nil) // until the hub notices, it times out
		return code(err) == twin.CodeOffline
	})
}

// TestCallOfAModule calls a method of a module over a leaf link. This test is the
// module, with the agent's rights.
func TestCallOfAModule(t *testing.T) {
	g := newGadget(t, "a")
	c := newCloud(t, g.entry())
	nc := c.operator()
	g.link(c)
	declared := schema.Desired{Device: "a", Modules: []schema.Module{{Name: "camera"}, {Name: "mute"}}}
	if err := g.leaf.Declare(testContext(t), declared); err != nil {
		t.Fatal(err)
	}
	module, err := g.leaf.Connect("camera")
	if err != nil {
		t.Fatal(err)
	}
	defer module.Close()
	times := make(chan string, 1000)
	if _, err := module.Subscribe(twin.Prefix("a", "camera")+".rpc.*", func(m *nats.Msg) {
		times <- m.Header.Get(twin.HeaderTimeout)
		if string(m.Data) != "say nothing" {
			_ = m.Respond([]byte("cheese"))
		}
	}); err != nil {
		t.Fatal(err)
	}
	shoot := Method{Device: "a", Module: "camera", Name: "shoot"}
	until(t, "the module answers", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		answer, err := Call(ctx, nc, shoot, nil)
		return err == nil && string(answer) == "cheese"
	})
	if d, err := time.ParseDuration(<-times); err != nil || d <= 0 || d > twin.DefaultCallTime {
		t.Errorf("the module has %s, %v", d, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := Call(ctx, nc, shoot, []byte("say nothing")); code(err) != twin.CodeTimeout {
		t.Errorf("no answer is %v", err)
	}
	for module, want := range map[string]int{"mute": twin.CodeOffline, "unknown": twin.CodeNotFound} {
		if _, err := Call(testContext(t), nc, Method{Device: "a", Module: module, Name: "shoot"}, nil); code(err) != want {
			t.Errorf("%s: %v", module, err)
		}
	}
}

// TestServe answers modules' calls, in their own names only.
func TestServe(t *testing.T) {
	g := newGadget(t, "a")
	c := newCloud(t, g.entry(), schema.Entry{Name: "b"})
	nc := c.operator()
	if _, err := Serve(nc, "weather", func(ctx context.Context, from Caller, body []byte) ([]byte, error) {
		if string(body) == "fail" {
			return nil, errors.New("no idea")
		}
		if _, ends := ctx.Deadline(); !ends {
			t.Error("a call has no end")
		}
		return []byte(from.Device + " " + from.Module + " " + string(body)), nil
	}); err != nil {
		t.Fatal(err)
	}
	g.link(c)
	device, err := g.leaf.ConnectHub("bridge")
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	until(t, "the service answers", func() bool {
		m, err := device.Request(twin.UpCall("a", "camera", "weather"), []byte("sunny"), time.Second)
		return err == nil && string(m.Data) == "a camera sunny"
	})
	m, err := device.Request(twin.UpCall("a", "camera", "weather"), []byte("fail"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := twin.ReadReply(m.Data); code(err) != twin.CodeFailed {
		t.Errorf("a failure is answered with %s", m.Data)
	}
	if m, err := device.Request(twin.UpCall("a", "camera", "nobody"), nil, 10*time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("no service: %v, %v", m, err)
	}
	if m, err := device.Request(twin.UpCall("b", "camera", "weather"), nil, 300*time.Millisecond); err == nil {
		t.Errorf("as another device: %s", m.Data)
	}
	request := nats.NewMsg(twin.UpCall("a", "camera", "weather"))
	request.Header.Set(twin.HeaderTimeout, "for ever")
	if m, err = device.RequestMsg(request, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if _, err := twin.ReadReply(m.Data); code(err) != twin.CodeMalformed {
		t.Errorf("a time without end is answered with %s", m.Data)
	}
}

// TestServicesShareCalls: each call that a device sends over its link comes to one
// of those who serve, once, from another account than theirs.
func TestServicesShareCalls(t *testing.T) {
	g := newGadget(t, "a")
	c := newCloud(t, g.entry())
	var served [2]atomic.Int64
	for n := range served {
		if _, err := Serve(c.operator(), "count", func(context.Context, Caller, []byte) ([]byte, error) {
			served[n].Add(1)
			return nil, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	g.link(c)
	device, err := g.leaf.ConnectHub("bridge")
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	answered := int64(0)
	count := twin.UpCall("a", "camera", "count")
	until(t, "the service answers", func() bool {
		_, err := device.Request(count, nil, 20*time.Second)
		if err == nil {
			answered++
		}
		return answered == 200
	})
	if one, two := served[0].Load(), served[1].Load(); one+two != answered || one == 0 || two == 0 {
		t.Errorf("of %d calls, %d and %d were served", answered, one, two)
	}
}
