package hub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/reconciler/gitsource"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// TestDeviceMayDoItsOwnByHand is the other half, for a device that speaks the
// leafnode protocol by itself: so does TestDeviceMayPublishNothingElse.
func TestDeviceMayDoItsOwnByHand(t *testing.T) {
	h := newTaken(t)
	var mu sync.Mutex
	var said []string
	w := h.dial(t, h.a, false, func(line string) {
		mu.Lock()
		defer mu.Unlock()
		said = append(said, line)
	})
	hears := func(line string) {
		t.Helper()
		until(t, "it hears "+line, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Contains(said, line)
		})
	}
	s := leafSpeaker{w}
	s.subscribe("_INBOX.a.x", "")
	s.publish("up.a.messages", "_INBOX.a.x", "", batchOf(at(0), 1, 3).Encode())
	hears(`{"epoch":"e","seq":3}`)
	if err := h.operator.Publish("_INBOX.a.x", []byte("for a")); err != nil {
		t.Fatal(err)
	}
	hears("for a")
}

// TestDeviceMayDoItsOwn is the other half.
func TestDeviceMayDoItsOwn(t *testing.T) {
	key, public := newKey(t)
	c := newCloud(t, schema.Entry{Name: "a", Identity: public})
	nc, err := login(c.hub.ClientURL(), key, nats.CustomInboxPrefix(twin.Inbox("a", "")),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { t.Error(err) }))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	moved, err := nc.SubscribeSync(twin.FleetMoved)
	if err != nil {
		t.Fatal(err)
	}
	stands(t, nc, "a", batchOf(at(0), 1, 1), at(1))
	c.follow(schema.Entry{Name: "a", Identity: public})
	for {
		m, err := moved.NextMsg(20 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Data) == `{"commit":"2"}` {
			break // the first commit may have been said before
		}
	}
}

func TestUnknownKeysAreNotAdmitted(t *testing.T) {
	key, public := newKey(t)
	c := newCloud(t, schema.Entry{Name: "a", Identity: public})
	other, _ := newKey(t)
	url := c.hub.ClientURL()
	for name, try := range map[string]func() (*nats.Conn, error){
		"no key":      func() (*nats.Conn, error) { return nats.Connect(url) },
		"password":    func() (*nats.Conn, error) { return nats.Connect(url, nats.UserInfo("operator", "")) },
		"another key": func() (*nats.Conn, error) { return login(url, other) },
		"known key, another's signature": func() (*nats.Conn, error) {
			return nats.Connect(url, nats.Nkey(public, func(nonce []byte) ([]byte, error) { return other.Sign(nonce) }))
		},
		"known key, old signature": func() (*nats.Conn, error) {
			return nats.Connect(url, nats.Nkey(public, func([]byte) ([]byte, error) { return key.Sign([]byte("nonce")) }))
		},
	} {
		if nc, err := try(); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: %v", name, err)
			nc.Close()
		}
	}
	if nc, err := login(url, key); err != nil {
		t.Error(err)
	} else {
		nc.Close()
	}
}

// TestRevocationCutsOneDevice takes one of two linked devices out of the fleet,
// and back in.
func TestRevocationCutsOneDevice(t *testing.T) {
	a, b := newGadget(t, "a"), newGadget(t, "b")
	c := newCloud(t, a.entry(), b.entry())
	a.link(c)
	b.link(c)
	linked := func(g *gadget, want bool) func() bool {
		return func() bool { up, _ := g.leaf.Linked(); return up == want }
	}
	until(t, "a is linked", linked(a, true))
	until(t, "b is linked", linked(b, true))
	_, since := b.leaf.Linked()
	c.follow(b.entry())
	until(t, "a is cut", linked(a, false))
	a.say(1, 10)
	b.say(1, 10)
	b.drained()
	if up, at := b.leaf.Linked(); !up || at != since {
		t.Error("b was disturbed")
	}
	if got := c.bodies("a"); len(got) != 0 {
		t.Errorf("a got through: %v", got)
	}
	c.follow(a.entry(), b.entry())
	a.drained()
	if got := c.bodies("a"); !slices.Equal(got, numbers(1, 10)) {
		t.Error(got)
	}
}

// TestAdmissionFollowsTheRepository uses a real repository and real definitions.
func TestAdmissionFollowsTheRepository(t *testing.T) {
	git := harness.NewGit(t)
	_, first := newKey(t)
	_, second := newKey(t)
	device := func(name, identity, more string) string {
		return fmt.Sprintf("package fleet\n\ndevice: {name: %q, identity: %q, %s}\n", name, identity, more)
	}
	git.Commit(map[string]string{
		"cue.mod/module.cue": "module: \"example.com/fleet@v0\"\nlanguage: version: \"v0.15.0\"\n",
		"a/device.cue":       device("a", first, ""),
	})
	dir := t.TempDir()
	config := schema.HubConfig{
		StateDir: filepath.Join(dir, "hub"), Listen: "127.0.0.1:0", LeafListen: "127.0.0.1:0",
		Repository: schema.Repository{URL: git.URL(), Branch: "main", Verify: schema.VerifyOff, Poll: schema.Duration(50 * time.Millisecond)},
	}
	source, err := gitsource.Open(filepath.Join(dir, "git"), config.Repository, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	h, err := Open(testContext(t), Config{HubConfig: config, Source: source, Devices: schema.LoadAll, Warn: func(err error) { t.Log("hub warns: ", err) }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); h.Run(ctx) }()
	defer func() { cancel(); <-ended; h.Close() }()
	admits := func(what string, want map[string]string) {
		t.Helper()
		until(t, what, func() bool { return maps.Equal(h.admission.admitted(), want) })
	}
	admits("the first commit", map[string]string{"a": first})
	git.Commit(map[string]string{"b/device.cue": device("b", second, "")})
	admits("a device is added", map[string]string{"a": first, "b": second})
	git.Commit(map[string]string{"a/device.cue": device("a", first, "typo: 1"), "b/device.cue": "package fleet\n"})
	admits("a typo keeps a, b is gone", map[string]string{"a": first})
	git.Commit(map[string]string{"a/device.cue": device("a", second, "")})
	admits("a has another key", map[string]string{"a": second})
}

// TestAdmittedWhileRepositoryIsOutOfReach restarts a hub that cannot fetch.
func TestAdmittedWhileRepositoryIsOutOfReach(t *testing.T) {
	key, public := newKey(t)
	c := newCloud(t, schema.Entry{Name: "a", Identity: public})
	c.stop()
	c.repo.err = errors.New("no route to host")
	c.start()
	nc, err := login(c.hub.ClientURL(), key)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

func TestAdmitting(t *testing.T) {
	_, one := newKey(t)
	_, two := newKey(t)
	_, three := newKey(t)
	had := fleet{Devices: map[string]string{"a": one, "b": two}}
	bad := errors.New("a/device.cue:3:4: conflict")
	for _, c := range []struct {
		name    string
		entries []schema.Entry
		want    map[string]string
		wrong   int
	}{
		{"none", nil, map[string]string{}, 0},
		{"same", []schema.Entry{{Name: "a", Identity: one}, {Name: "b", Identity: two}}, had.Devices, 0},
		{"rotated", []schema.Entry{{Name: "a", Identity: three}}, map[string]string{"a": three}, 0},
		{"no identity", []schema.Entry{{Name: "a"}, {Name: "b", Identity: two}}, map[string]string{"b": two}, 0},
		{"does not render", []schema.Entry{{Name: "a", Err: bad}}, map[string]string{"a": one}, 1},
		{"new, does not render", []schema.Entry{{Name: "c", Err: bad}}, map[string]string{}, 1},
		{"not a key", []schema.Entry{{Name: "a", Identity: "U123"}, {Name: "c", Identity: "SUAx"}}, map[string]string{"a": one}, 2},
		{"stolen identity", []schema.Entry{{Name: "a", Identity: one}, {Name: "c", Identity: one}}, map[string]string{"a": one}, 1},
		{"shared new identity", []schema.Entry{{Name: "c", Identity: three}, {Name: "d", Identity: three}}, map[string]string{}, 1},
		{"two directories", []schema.Entry{{Name: "a", Err: bad}, {Name: "a", Err: bad}}, map[string]string{"a": one}, 2},
		{"not a name", []schema.Entry{{Name: "a.*", Identity: three}}, map[string]string{}, 0},
		{"swapped", []schema.Entry{{Name: "a", Identity: two}, {Name: "b", Identity: one}}, map[string]string{"a": two, "b": one}, 0},
	} {
		got, wrong := had.admitting(schema.Revision{Commit: "x"}, c.entries)
		if !maps.Equal(got.Devices, c.want) || len(wrong) != c.wrong {
			t.Errorf("%s: %v %v", c.name, got.Devices, wrong)
		}
	}
}

func TestFleetFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), fleetFile)
	_, public := newKey(t)
	f := fleet{Revision: schema.Revision{Commit: "c"}, Devices: map[string]string{"a": public}}
	if err := f.write(path); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, broken, err := readFleet(path); err != nil || broken != nil || !maps.Equal(got.Devices, f.Devices) {
		t.Fatal(got, broken, err)
	}
	for name, data := range map[string][]byte{
		"empty": nil, "truncated": good[:len(good)/2], "zeros": make([]byte, len(good)),
		"flipped": []byte(strings.Replace(string(good), `"commit":"c"`, `"commit":"d"`, 1)),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, broken, err := readFleet(path)
		if err != nil || broken == nil || len(got.Devices) != 0 {
			t.Errorf("%s: %v %v %v", name, got, broken, err)
		}
		if _, broken, err := readFleet(path); err != nil || broken != nil {
			t.Errorf("%s: met again: %v %v", name, broken, err)
		}
	}
}

func TestStateIsPrivate(t *testing.T) {
	c := newCloud(t)
	for path, want := range map[string]os.FileMode{"": 0o700, operatorFile: 0o600, fleetFile: 0o600, "jetstream": 0o700} {
		info, err := os.Stat(filepath.Join(c.conf.StateDir, path))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}
