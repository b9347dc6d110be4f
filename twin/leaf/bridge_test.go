package leaf

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

// linkedSite is a device with module sensor, linked to a hub.
func linkedSite(t *testing.T, open bool) (*site, *Leaf, *hub) {
	t.Helper()
	s := newSite(t)
	h := startHub(t, deviceIdentity(t, s), 0, open, nil)
	s.linkTo(h.port)
	l := s.open()
	s.declare(l, declared("sensor", "other"))
	waitLinked(t, l, true)
	return s, l, h
}

// callFromHub calls a method as the hub does, and returns the answer's refusal.
func callFromHub(t *testing.T, conn *nats.Conn, subject, timeout string, body []byte) ([]byte, *twin.Error) {
	t.Helper()
	answers, err := conn.SubscribeSync("up.d1.answer." + nats.NewInbox()[len("_INBOX."):])
	if err != nil {
		t.Fatal(err)
	}
	defer answers.Unsubscribe()
	m := &nats.Msg{Subject: subject, Reply: answers.Subject, Data: body, Header: nats.Header{}}
	if timeout != "" {
		m.Header.Set(twin.HeaderTimeout, timeout)
	}
	if err := conn.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
	answer, err := answers.NextMsg(patience)
	if err != nil {
		t.Fatalf("%s: %v", subject, err)
	}
	data, err := twin.ReadReply(answer.Data)
	var refusal *twin.Error
	if err != nil && !errors.As(err, &refusal) {
		t.Fatal(err)
	}
	return data, refusal
}

// reachable waits until the hub knows that the device listens.
func reachable(t *testing.T, conn *nats.Conn) {
	t.Helper()
	eventually(t, "the hub reaches the device", func() bool {
		answers, err := conn.SubscribeSync("up.d1.answer.reachable")
		if err != nil {
			t.Fatal(err)
		}
		defer answers.Unsubscribe()
		_ = conn.PublishRequest("devices.d1.modules.nobody.rpc.x", "up.d1.answer.reachable", nil)
		m, err := answers.NextMsg(100 * time.Millisecond)
		return err == nil && len(m.Data) > 0
	})
}

func TestHubCallsModule(t *testing.T) {
	s, l, h := linkedSite(t, false)
	conn := h.connect(t)
	reachable(t, conn)
	module := s.module(l, "sensor")
	release := make(chan struct{})
	for subject, f := range map[string]nats.MsgHandler{
		"echo":  func(m *nats.Msg) { _ = m.Respond([]byte(m.Header.Get(twin.HeaderTimeout) + " " + string(m.Data))) },
		"deny":  func(m *nats.Msg) { _ = m.Respond(twin.Refusal(&twin.Error{Code: 409, Message: "not now"})) },
		"hang":  func(m *nats.Msg) {},
		"large": func(m *nats.Msg) { _ = m.Respond(make([]byte, twin.MaxBody+1)) },
		"wait":  func(m *nats.Msg) { go func() { <-release; _ = m.Respond([]byte("done")) }() },
	} {
		if _, err := module.Subscribe("devices.d1.modules.sensor.rpc."+subject, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := module.Flush(); err != nil {
		t.Fatal(err)
	}
	p := "devices.d1.modules.sensor.rpc."
	if got, refusal := callFromHub(t, conn, p+"echo", "7s", []byte("hello")); string(got) != "7s hello" || refusal != nil {
		t.Errorf("%s, %v", got, refusal)
	}
	if got, refusal := callFromHub(t, conn, p+"echo", "", nil); string(got) != "30s " || refusal != nil {
		t.Errorf("with no time: %s, %v", got, refusal)
	}
	for name, c := range map[string]struct {
		subject, timeout string
		body             []byte
		code             int
	}{
		"refused by the module": {p + "deny", "", nil, 409},
		"no such method":        {p + "none", "", nil, twin.CodeOffline},
		"not connected":         {"devices.d1.modules.other.rpc.echo", "5m", nil, twin.CodeOffline},
		"not declared":          {"devices.d1.modules.nobody.rpc.echo", "", nil, twin.CodeNotFound},
		"no answer in time":     {p + "hang", "50ms", nil, twin.CodeTimeout},
		"an answer too large":   {p + "large", "", nil, twin.CodeTooLarge},
		"too long":              {p + "echo", "6m", nil, twin.CodeMalformed},
		"no time":               {p + "echo", "soon", nil, twin.CodeMalformed},
		"a body too large":      {p + "echo", "", make([]byte, twin.MaxBody+1), twin.CodeTooLarge},
	} {
		if _, refusal := callFromHub(t, conn, c.subject, c.timeout, c.body); refusal == nil || refusal.Code != c.code {
			t.Errorf("%s: %v", name, refusal)
		}
	}
	// One module's calls are bounded, and leave others alone.
	done := make(chan *twin.Error, maxModuleCalls)
	for range maxModuleCalls {
		go func() { _, refusal := callFromHub(t, conn, p+"wait", "", nil); done <- refusal }()
	}
	eventually(t, "they run", func() bool {
		l.methods.mu.Lock()
		defer l.methods.mu.Unlock()
		return l.methods.bridged["sensor"] == maxModuleCalls
	})
	if _, refusal := callFromHub(t, conn, p+"echo", "", nil); refusal == nil || refusal.Code != twin.CodeBusy {
		t.Errorf("one too many: %v", refusal)
	}
	if _, refusal := callFromHub(t, conn, "devices.d1.modules.other.rpc.echo", "", nil); refusal == nil || refusal.Code != twin.CodeOffline {
		t.Errorf("another module meanwhile: %v", refusal)
	}
	close(release)
	for range maxModuleCalls {
		if refusal := <-done; refusal != nil {
			t.Error(refusal)
		}
	}
}

// Whatever a hub permits: an answer goes below up.<device>.answer, and nowhere else.
func TestAnswersToTheHubGoNowhereElse(t *testing.T) {
	s, l, h := linkedSite(t, true)
	conn := h.connect(t)
	reachable(t, conn)
	called := make(chan string, 16)
	if err := l.Handle("own", func(context.Context, []byte) ([]byte, error) { called <- "own"; return []byte("answer"), nil }); err != nil {
		t.Fatal(err)
	}
	module := s.module(l, "sensor")
	if _, err := module.Subscribe("devices.d1.modules.sensor.rpc.echo", func(m *nats.Msg) { called <- "echo"; _ = m.Respond([]byte("answer")) }); err != nil || module.Flush() != nil {
		t.Fatal(err)
	}
	all, err := conn.SubscribeSync(">")
	if err != nil || conn.Flush() != nil {
		t.Fatal(err)
	}
	for _, subject := range []string{"devices.d1.modules.sensor.rpc.echo", "devices.d1.rpc.own"} {
		for _, reply := range []string{"", "_INBOX.d1.x", "up.d1.twin", "up.d2.answer.x", "up.d1.answer", "up.d1.answerx.y", "fleet.moved", "$JS.API.INFO"} {
			if err := conn.PublishMsg(&nats.Msg{Subject: subject, Reply: reply}); err != nil {
				t.Fatal(err)
			}
		}
		if got, refusal := callFromHub(t, conn, subject, "", nil); string(got) != "answer" || refusal != nil {
			t.Errorf("%s: %s, %v", subject, got, refusal)
		}
	}
	if len(called) != 2 {
		t.Errorf("%d calls ran, want the two with a reply that may be", len(called))
	}
	for {
		m, err := all.NextMsg(50 * time.Millisecond)
		if err != nil {
			break
		}
		if string(m.Data) == "answer" && !strings.HasPrefix(m.Subject, "up.d1.answer.") {
			t.Errorf("an answer went to %s", m.Subject)
		}
	}
}

// askAs calls a service at the hub as a module does.
func askAs(t *testing.T, conn *nats.Conn, name, timeout string, body []byte) ([]byte, *twin.Error) {
	t.Helper()
	m := &nats.Msg{Subject: "devices.d1.modules.sensor.hub." + name, Data: body, Header: nats.Header{}}
	if timeout != "" {
		m.Header.Set(twin.HeaderTimeout, timeout)
	}
	answer, err := conn.RequestMsg(m, patience)
	if err != nil {
		t.Fatal(err)
	}
	data, err := twin.ReadReply(answer.Data)
	var refusal *twin.Error
	if err != nil && !errors.As(err, &refusal) {
		t.Fatal(err)
	}
	return data, refusal
}

func TestModuleCallsHub(t *testing.T) {
	s, l, h := linkedSite(t, false)
	conn := h.connect(t)
	release := make(chan struct{})
	for name, f := range map[string]nats.MsgHandler{
		"echo": func(m *nats.Msg) {
			_ = m.Respond([]byte(m.Subject + " " + m.Header.Get(twin.HeaderTimeout) + " " + string(m.Data)))
		},
		"hang":  func(m *nats.Msg) {},
		"wait":  func(m *nats.Msg) { go func() { <-release; _ = m.Respond([]byte("done")) }() },
		"large": func(m *nats.Msg) { _ = m.Respond(make([]byte, twin.MaxBody+1)) },
	} {
		if _, err := conn.Subscribe("up.*.call.*."+name, f); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	module := s.module(l, "sensor")
	eventually(t, "the device knows of the service", func() bool {
		got, _ := askAs(t, module, "echo", "7s", []byte("hello"))
		return string(got) == "up.d1.call.sensor.echo 7s hello"
	})
	for name, c := range map[string]struct {
		service, timeout string
		body             []byte
		code             int
	}{
		"nobody there":        {"none", "", nil, twin.CodeOffline},
		"no answer in time":   {"hang", "50ms", nil, twin.CodeTimeout},
		"an answer too large": {"large", "", nil, twin.CodeTooLarge},
		"a name that is none": {"UPPER", "", nil, twin.CodeNotFound},
		"no time":             {"echo", "-1s", nil, twin.CodeMalformed},
		"a body too large":    {"echo", "", make([]byte, twin.MaxBody+1), twin.CodeTooLarge},
	} {
		if _, refusal := askAs(t, module, c.service, c.timeout, c.body); refusal == nil || refusal.Code != c.code {
			t.Errorf("%s: %v", name, refusal)
		}
	}
	// An answer goes to the module's own inbox only.
	elsewhere, err := l.Connect("elsewhere")
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	stolen, err := elsewhere.SubscribeSync("devices.d1.modules.other.>")
	if err != nil || elsewhere.Flush() != nil {
		t.Fatal(err)
	}
	if err := module.PublishRequest("devices.d1.modules.sensor.hub.echo", "devices.d1.modules.other.rpc.x", nil); err != nil {
		t.Fatal(err)
	}
	// Bounded.
	done := make(chan *twin.Error, maxModuleCalls)
	for range maxModuleCalls {
		go func() { _, refusal := askAs(t, module, "wait", "", nil); done <- refusal }()
	}
	eventually(t, "they run", func() bool {
		l.twins.mu.Lock()
		defer l.twins.mu.Unlock()
		return len(l.twins.services["sensor"].calls) == maxModuleCalls
	})
	if _, refusal := askAs(t, module, "echo", "", nil); refusal == nil || refusal.Code != twin.CodeBusy {
		t.Errorf("one too many: %v", refusal)
	}
	// The link goes: those that wait are told at once, and whoever asks.
	h.Shutdown()
	h.WaitForShutdown()
	for range maxModuleCalls {
		if refusal := <-done; refusal == nil || refusal.Code != twin.CodeTimeout || !strings.Contains(refusal.Message, "link") {
			t.Errorf("cut off: %v", refusal)
		}
	}
	close(release)
	waitLinked(t, l, false)
	if _, refusal := askAs(t, module, "echo", "5m", nil); refusal == nil || refusal.Code != twin.CodeOffline || !strings.Contains(refusal.Message, "link") {
		t.Errorf("with no link: %v", refusal)
	}
	if n, _, _ := stolen.Pending(); n != 0 {
		t.Error("an answer went to another module")
	}
}

func TestModuleCallsHubThatIsNone(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor"))
	if _, refusal := askAs(t, s.module(l, "sensor"), "echo", "", nil); refusal == nil || refusal.Code != twin.CodeOffline {
		t.Errorf("%v", refusal)
	}
}

// The device's own methods end when their caller waits no more.
func TestMethodsOfTheDeviceHaveATimeLimit(t *testing.T) {
	s := newSite(t)
	l := s.open()
	release := make(chan struct{})
	err := l.Handle("wait", func(ctx context.Context, body []byte) ([]byte, error) {
		if string(body) == "deaf" {
			<-release
			return []byte("late"), nil
		}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer close(release)
	conn, _, err := Dial(s.config.RunDir)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, body := range []string{"", "deaf"} {
		answer, err := conn.RequestMsg(&nats.Msg{Subject: "devices.d1.rpc.wait", Header: nats.Header{twin.HeaderTimeout: {"50ms"}}, Data: []byte(body)}, patience)
		if err != nil {
			t.Fatal(err)
		}
		var refusal *twin.Error
		if _, err := twin.ReadReply(answer.Data); !errors.As(err, &refusal) || refusal.Code != twin.CodeTimeout {
			t.Errorf("%q: %v", body, err)
		}
	}
	answer, err := conn.RequestMsg(&nats.Msg{Subject: "devices.d1.rpc.wait", Header: nats.Header{twin.HeaderTimeout: {"1h"}}}, patience)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := twin.ReadReply(answer.Data); err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("an hour: %v", err)
	}
}
