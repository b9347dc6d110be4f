package twin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/internal/challenge"
	"github.com/tidemark-edge/tidemark/twin"
)

const patience = 30 * time.Second

// device is a NATS server that admits keys as the agent does, with the agent's
// side left to the test.
type device struct {
	t    testing.TB
	dir  string
	port int

	mu     sync.Mutex
	server *server.Server
	admit  map[string]string // identity by public key: "" is the agent and the operator
	seen   []string          // keys in the order of their connects
}

func newDevice(t testing.TB) *device {
	d := &device{t: t, dir: t.TempDir(), port: server.RANDOM_PORT, admit: map[string]string{}}
	d.run()
	t.Cleanup(d.stop)
	return d
}

func (d *device) run() {
	d.t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: d.port, NoSigs: true, NoLog: true, AlwaysEnableNonce: true, CustomClientAuthentication: d,
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	d.server = s
	d.mu.Unlock()
	s.Start()
	if !s.ReadyForConnections(patience) {
		d.t.Fatal("the server does not start")
	}
	var port int
	if _, err := fmt.Sscanf(s.ClientURL(), "nats://127.0.0.1:%d", &port); err != nil {
		d.t.Fatal(err)
	}
	d.port = port
}

func (d *device) stop() {
	d.mu.Lock()
	s := d.server
	d.mu.Unlock()
	s.Shutdown()
	s.WaitForShutdown()
}

// Check implements server.Authentication.
func (d *device) Check(c server.ClientAuthentication) bool {
	if !challenge.Answered(c.GetOpts().Nkey, c.GetOpts().Sig, c.GetNonce()) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	module, ok := d.admit[c.GetOpts().Nkey]
	if !ok {
		return false
	}
	d.seen = append(d.seen, c.GetOpts().Nkey)
	user := &server.User{Username: module}
	if module != "" {
		p := twin.Prefix("d1", module)
		user.Permissions = &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{p + ".twin.*", p + ".out.>", p + ".hub.>", p + ".call.callee.allowed"}},
			Subscribe: &server.SubjectPermission{Allow: []string{p + ".twin.desired", p + ".in.>", p + ".rpc.>", twin.Inbox("d1", module) + ".>"}},
			Response:  &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute},
		}
	}
	c.RegisterUser(user)
	return true
}

// key makes a new key of a module, in the file where its client finds it.
func (d *device) key(module string) (public string) {
	d.t.Helper()
	pair, err := nkeys.CreateUser()
	if err != nil {
		d.t.Fatal(err)
	}
	seed, _ := pair.Seed()
	public, _ = pair.PublicKey()
	temp := filepath.Join(d.dir, "new")
	if err := errors.Join(os.WriteFile(temp, append(seed, '\n'), 0o400), os.Rename(temp, d.seedFile(module))); err != nil {
		d.t.Fatal(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.admit[public] = module
	return public
}

func (d *device) seedFile(module string) string { return filepath.Join(d.dir, "seed."+module) }

func (d *device) forget(public string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.admit, public)
}

func (d *device) last() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen[len(d.seen)-1]
}

// client connects as a module, or as the device with an empty name.
func (d *device) client(module string) *twin.Client {
	d.t.Helper()
	identity := "/devices/d1"
	if module != "" {
		identity += "/modules/" + module
	}
	for key, value := range map[string]string{
		twin.EnvURL: fmt.Sprintf("nats://127.0.0.1:%d", d.port), twin.EnvIdentity: identity, twin.EnvCreds: d.seedFile(module),
	} {
		d.t.(*testing.T).Setenv(key, value)
	}
	c, err := twin.Connect(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(c.Close)
	return c
}

// agent connects with every permission.
func (d *device) agent() *nats.Conn {
	d.key("")
	c := d.client("")
	return c.Conn()
}

func (d *device) answer(conn *nats.Conn, subject string, f func(*nats.Msg)) {
	d.t.Helper()
	if _, err := conn.Subscribe(subject, f); err != nil {
		d.t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) until(what string, ok func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func wantCode(t testing.TB, err error, code int) {
	t.Helper()
	var e *twin.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("error is %v, want code %d", err, code)
	}
}

// A rotated identity is taken without a restart of the module: new connections
// use the new seed, and the old one may go (iotedge#7304: renewal restarts all
// modules).
func TestRotatedSeedIsTaken(t *testing.T) {
	d := newDevice(t)
	first := d.key("m")
	c := d.client("m")
	if d.last() != first {
		t.Fatalf("connected with %s", d.last())
	}
	agent := d.agent()
	d.answer(agent, "devices.d1.modules.m.out.x", func(m *nats.Msg) { _ = m.Respond([]byte("{}")) })
	senders, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for range 4 { // so that -race sees who reads what while keys change
		wait.Go(func() {
			for senders.Err() == nil {
				_ = c.Send(senders, "x", nil)
			}
		})
	}
	for range 5 {
		old, is := first, d.key("m")
		first = is
		// Cut off, as at the end of the grace; the old key is no longer good.
		d.forget(old)
		id, err := c.Conn().GetClientID()
		if err != nil {
			t.Fatal(err)
		}
		if err := d.server.DisconnectClientByID(id); err != nil {
			t.Fatal(err)
		}
		d.until("the new seed is taken", func() bool { return d.last() == is })
		if err := c.Send(t.Context(), "x", nil); err != nil && !strings.Contains(err.Error(), "lost before it answered") {
			t.Fatal(err)
		}
	}
	stop()
	wait.Wait()
	if err := c.Send(t.Context(), "x", nil); err != nil {
		t.Error(err)
	}
}

// A seed file that is gone or broken for a while leaves the client as it is.
func TestUnreadableSeedLeavesTheOneBefore(t *testing.T) {
	d := newDevice(t)
	key := d.key("m")
	c := d.client("m")
	seed, err := os.ReadFile(d.seedFile("m"))
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func() error{
		"gone":  func() error { return os.Remove(d.seedFile("m")) },
		"empty": func() error { return os.WriteFile(d.seedFile("m"), nil, 0o600) },
		"huge":  func() error { return os.WriteFile(d.seedFile("m"), make([]byte, 1<<20), 0o600) },
		"account": func() error {
			pair, _ := nkeys.CreateAccount()
			seed, _ := pair.Seed()
			return os.WriteFile(d.seedFile("m"), seed, 0o600)
		},
	} {
		if err := errors.Join(os.RemoveAll(d.seedFile("m")), os.WriteFile(d.seedFile("m"), seed, 0o600), spoil()); err != nil {
			t.Fatal(err)
		}
		d.stop()
		d.run()
		d.until("it is back with the seed "+name, c.Conn().IsConnected)
		if d.last() != key {
			t.Errorf("%s: came back with %s", name, d.last())
		}
	}
}

func TestUpdatesOfReported(t *testing.T) {
	d := newDevice(t)
	d.key("m")
	c, agent := d.client("m"), d.agent()
	// What the leaf does, in small.
	var mu sync.Mutex
	s := twin.Section{Version: 1}
	busy := 2
	d.answer(agent, "devices.d1.modules.m.twin.*", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		if busy > 0 {
			busy--
			_ = m.Respond(twin.Refusal(&twin.Error{Code: twin.CodeBusy, Message: "wait"}))
			return
		}
		patch, err := twin.ReadPatch(m.Data)
		if err == nil {
			err = twin.Precondition(s, m.Header)
		}
		var next twin.Section
		if err == nil && strings.HasSuffix(m.Subject, ".replace") {
			next, _, err = twin.Replace(s, patch, twin.MaxSection, time.Now())
		} else if err == nil {
			next, _, err = twin.Merge(s, patch, time.Now())
		}
		if err != nil {
			_ = m.Respond(twin.Refusal(err))
			return
		}
		s = next
		data, _ := json.Marshal(twin.Answer{Version: s.Version})
		_ = m.Respond(data)
	})
	ctx := t.Context()
	want := func(version uint64, err error, is uint64, values string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		data, _ := json.Marshal(s.Values)
		if err != nil || version != is || string(data) != values {
			t.Errorf("version %d, %v: %s, want version %d: %s", version, err, data, is, values)
		}
	}
	v, err := c.Report(ctx, map[string]any{"a": 1, "b": 2})
	want(v, err, 2, `{"a":1,"b":2}`)
	v, err = c.Replace(ctx, map[string]any{"c": 3, "d": nil})
	want(v, err, 3, `{"c":3}`)
	v, err = c.IfVersion(3).Report(ctx, map[string]any{"a": 1})
	want(v, err, 4, `{"a":1,"c":3}`)
	_, err = c.IfVersion(3).Report(ctx, map[string]any{"a": 2})
	wantCode(t, err, twin.CodePrecondition)
	_, err = c.IfVersion(3).Replace(ctx, map[string]any{})
	wantCode(t, err, twin.CodePrecondition)
	if !strings.Contains(fmt.Sprint(err), "version 4") {
		t.Errorf("%v does not say which version it is", err)
	}
	v, err = c.IfVersion(4).Replace(ctx, nil)
	want(v, err, 5, `{}`)
	_, err = c.Replace(ctx, map[string]any{"a": map[string]any{"$b": 1}})
	wantCode(t, err, twin.CodeMalformed)
	_, err = c.Replace(ctx, map[string]any{"a": strings.Repeat("x", twin.MaxSection)})
	wantCode(t, err, twin.CodeTooLarge)
}

func TestInputs(t *testing.T) {
	d := newDevice(t)
	d.key("m")
	c, agent := d.client("m"), d.agent()
	type call struct {
		m   twin.Message
		err error
	}
	calls := make(chan call, 16)
	fail := make(chan error, 1)
	f := func(_ context.Context, m twin.Message) error {
		var err error
		select {
		case err = <-fail:
		default:
		}
		calls <- call{m, err}
		return err
	}
	if err := c.OnInput("commands", f); err != nil {
		t.Fatal(err)
	}
	if err := c.OnInput("commands", f); err == nil {
		t.Error("two functions get one input")
	}
	if err := c.OnInput("a.>", f); err == nil {
		t.Error("a wildcard is an input")
	}
	deliver := func(seq int) []byte {
		t.Helper()
		m := nats.NewMsg("devices.d1.modules.m.in.commands")
		m.Header.Set(twin.HeaderFrom, "other/out")
		m.Header.Set(twin.HeaderEpoch, "e1")
		m.Header.Set(twin.HeaderSeq, fmt.Sprint(seq))
		m.Header.Set(twin.HeaderTime, "2026-03-01T12:00:00Z")
		m.Header.Set("Unit", "K")
		m.Data = []byte("body")
		answer, err := agent.RequestMsg(m, patience)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Data
	}
	fail <- errors.New("not now")
	if a, err := twin.ReadAnswer(deliver(1)); err == nil || a.Error.Code != twin.CodeFailed || a.Error.Message != "not now" {
		t.Errorf("a message that was not taken: %v", err)
	}
	<-calls
	if answer := deliver(1); len(answer) != 0 {
		t.Errorf("taken: %s", answer)
	}
	got := <-calls
	if got.m.From != "other/out" || got.m.Seq != 1 || got.m.Epoch != "e1" || got.m.Header.Get("Unit") != "K" || string(got.m.Body) != "body" {
		t.Errorf("%+v", got.m)
	}
	// The answer was lost on its way, or the agent did not wait for it: f has had it.
	if answer := deliver(1); len(answer) != 0 || len(calls) != 0 {
		t.Errorf("the same again: %s, %d calls", answer, len(calls))
	}
	if answer := deliver(2); len(answer) != 0 || (<-calls).m.Seq != 2 {
		t.Errorf("the next: %s", answer)
	}
	// An agent that was killed does not know of the last few.
	for seq := 1; seq <= 2; seq++ {
		if answer := deliver(seq); len(answer) != 0 || len(calls) != 0 {
			t.Errorf("once more: %s, %d calls", answer, len(calls))
		}
	}
	if m, err := agent.Request("devices.d1.modules.m.in.commands", []byte("by hand"), patience); err != nil || len(m.Data) != 0 || string((<-calls).m.Body) != "by hand" {
		t.Errorf("a person's: %v, %v", m, err)
	}
	bad := nats.NewMsg("devices.d1.modules.m.in.commands")
	bad.Header.Set(twin.HeaderSeq, "x")
	if m, err := agent.RequestMsg(bad, patience); err != nil || !strings.Contains(string(m.Data), `"code":400`) || len(calls) != 0 {
		t.Errorf("malformed: %v, %v", m, err)
	}
}

func TestMethodsAndCalls(t *testing.T) {
	d := newDevice(t)
	d.key("m")
	d.key("callee")
	caller, callee, agent := d.client("m"), d.client("callee"), d.agent()
	d.answer(agent, "devices.d1.modules.m.call.*.*", func(m *nats.Msg) {
		go func() {
			method := strings.TrimPrefix(m.Subject, "devices.d1.modules.m.call.callee.")
			a, err := agent.RequestMsg(&nats.Msg{Subject: "devices.d1.modules.callee.rpc." + method, Header: m.Header, Data: m.Data}, patience)
			if err == nil {
				_ = m.Respond(a.Data)
			}
		}()
	})
	running := make(chan struct{}, 64)
	err := errors.Join(
		callee.OnMethod("allowed", func(ctx context.Context, body []byte) ([]byte, error) {
			switch string(body) {
			case "fail":
				return nil, errors.New("broken")
			case "refuse":
				return nil, &twin.Error{Code: twin.CodeNotFound, Path: "a.b", Message: "no such thing"}
			case "large":
				return make([]byte, twin.MaxBody+1), nil
			case "nothing":
				return nil, nil
			case "wait":
				running <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return append([]byte("echo "), body...), nil
		}),
		callee.OnMethod("other", func(context.Context, []byte) ([]byte, error) { return []byte("reached"), nil }),
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := callee.OnMethod("other", nil); err == nil {
		t.Error("two functions answer one method")
	}
	ctx := t.Context()
	if a, err := caller.Call(ctx, "callee/allowed", []byte("x")); err != nil || string(a) != "echo x" {
		t.Errorf("%s, %v", a, err)
	}
	if a, err := caller.Call(ctx, "callee/allowed", []byte("nothing")); err != nil || len(a) != 0 {
		t.Errorf("an empty answer: %s, %v", a, err)
	}
	for body, code := range map[string]int{"fail": twin.CodeFailed, "refuse": twin.CodeNotFound, "large": twin.CodeTooLarge} {
		_, err := caller.Call(ctx, "callee/allowed", []byte(body))
		wantCode(t, err, code)
	}
	// What nobody granted is refused at once, rather than by a timeout.
	_, err = caller.Call(ctx, "callee/other", nil)
	wantCode(t, err, twin.CodeRefused)
	_, err = caller.Call(ctx, "hub/weather", nil) // no link: nobody bridges it
	wantCode(t, err, twin.CodeOffline)
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = caller.Call(short, "callee/allowed", []byte("wait"))
	wantCode(t, err, twin.CodeTimeout)
	for _, target := range []string{"", "/", "a/", "/a", "a/b/c", "a.b/c", "*/c", "a/>", "hub/", "A/b"} {
		_, err := caller.Call(ctx, target, nil)
		wantCode(t, err, twin.CodeMalformed)
	}
	_, err = caller.Call(ctx, "callee/allowed", make([]byte, twin.MaxBody+1))
	wantCode(t, err, twin.CodeTooLarge)

	// A person calls as the device; so many at a time, the next is told so.
	d.key("")
	person := d.client("")
	<-running // the one above
	waiting, end := context.WithCancel(ctx)
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			var e *twin.Error
			for busy := true; busy; { // until the one above is over
				_, err := person.Call(waiting, "callee/allowed", []byte("wait"))
				busy = errors.As(err, &e) && e.Code == twin.CodeBusy
			}
		})
	}
	for range 16 {
		<-running
	}
	_, err = person.Call(ctx, "callee/allowed", nil)
	wantCode(t, err, twin.CodeBusy)
	end()
	wait.Wait()
	if a, err := person.Call(ctx, "callee/other", nil); err != nil || string(a) != "reached" {
		t.Errorf("by a person: %s, %v", a, err)
	}
	callee.Close()
	_, err = person.Call(ctx, "callee/other", nil)
	wantCode(t, err, twin.CodeOffline)
	d.stop()
	d.until("the connection is lost", func() bool { return !person.Conn().IsConnected() })
	_, err = person.Call(ctx, "callee/other", nil)
	wantCode(t, err, twin.CodeOffline)
	d.run()
}

func TestSendIsRefusedBeforeItIsSent(t *testing.T) {
	d := newDevice(t)
	d.key("m")
	c := d.client("m")
	for name, c := range map[string]struct {
		err  error
		code int
	}{
		"name":     {c.Send(t.Context(), "a.b", nil), twin.CodeMalformed},
		"wildcard": {c.Send(t.Context(), "*", nil), twin.CodeMalformed},
		"body":     {c.Send(t.Context(), "a", make([]byte, twin.MaxBody+1)), twin.CodeTooLarge},
		"ours":     {c.SendWith(t.Context(), "a", nats.Header{"Tidemark-Seq": {"1"}}, nil), twin.CodeMalformed},
		"NATS's":   {c.SendWith(t.Context(), "a", nats.Header{"Nats-Rollup": {"all"}}, nil), twin.CodeMalformed},
		"headers":  {c.SendWith(t.Context(), "a", nats.Header{"A": {strings.Repeat("x", twin.MaxHeaders)}}, nil), twin.CodeTooLarge},
		"values":   {c.SendWith(t.Context(), "a", nats.Header{"A": make([]string, twin.MaxHeaderValues+1)}, nil), twin.CodeTooLarge},
	} {
		var e *twin.Error
		if !errors.As(c.err, &e) || e.Code != c.code {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}

// Nothing outlives Close, and what comes after it is an error.
func TestClose(t *testing.T) {
	d := newDevice(t)
	d.key("m")
	c := d.client("m")
	started := make(chan struct{})
	err := errors.Join(
		c.OnMethod("wait", func(ctx context.Context, _ []byte) ([]byte, error) {
			close(started)
			<-ctx.Done()
			return []byte("late"), nil
		}),
		c.OnInput("in", func(context.Context, twin.Message) error { return nil }),
		c.OnDesired(func(twin.Section) {}),
	)
	if err != nil {
		t.Fatal(err)
	}
	agent := d.agent()
	answer := make(chan string, 1)
	go func() {
		m, err := agent.Request("devices.d1.modules.m.rpc.wait", nil, patience)
		if err != nil {
			answer <- err.Error()
			return
		}
		answer <- string(m.Data)
	}()
	<-started
	sent := make(chan error, 1)
	go func() { sent <- c.Send(context.Background(), "nobody-takes-it", nil) }()
	c.Close()
	if got := <-answer; got != "late" {
		t.Errorf("the call that ran was answered %q", got)
	}
	if err := <-sent; err == nil {
		t.Error("a Send that waited is done after Close")
	}
	if err := c.OnInput("more", func(context.Context, twin.Message) error { return nil }); err == nil {
		t.Error("an input after Close")
	}
	if err := c.OnDesired(func(twin.Section) {}); err == nil {
		t.Error("watching after Close")
	}
	c.Close()
}

// Changes that come while the last is still being followed are one.
func TestDesiredCoalesces(t *testing.T) {
	d := newDevice(t)
	d.key("m")
	c, agent := d.client("m"), d.agent()
	var mu sync.Mutex
	s := twin.Section{Values: map[string]any{}, Version: 1}
	d.answer(agent, "devices.d1.modules.m.twin.get", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		_ = m.Respond(twin.Document{Device: "d1", Module: "m", Properties: twin.Properties{Desired: s}}.Encode())
	})
	change := func(version uint64) {
		t.Helper()
		mu.Lock()
		s.Version = version
		mu.Unlock()
		if err := agent.Publish("devices.d1.modules.m.twin.desired", nil); err != nil {
			t.Fatal(err)
		}
	}
	called, next := make(chan uint64), make(chan struct{})
	err := c.OnDesired(func(s twin.Section) {
		called <- s.Version
		<-next
	})
	if err != nil {
		t.Fatal(err)
	}
	want := func(version uint64) {
		t.Helper()
		if got := <-called; got != version {
			t.Errorf("told of version %d, want %d", got, version)
		}
	}
	want(1)
	for v := uint64(2); v <= 50; v++ {
		change(v)
	}
	if err := agent.Flush(); err != nil {
		t.Fatal(err)
	}
	next <- struct{}{}
	want(50)
	change(50) // nothing new
	change(51)
	next <- struct{}{}
	want(51)
	next <- struct{}{}
}
