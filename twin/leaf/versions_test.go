package leaf

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// hubCopy is what a hub holds of the twins, by the hub's own rule: it takes a
// document in which no version goes back and one rises, and else says what it has.
type hubCopy map[string]twin.Document

func (h hubCopy) send(d twin.Document) (stored bool, held twin.Document) {
	was, ok := h[d.Module]
	dd, dr := d.Properties.Desired.Version, d.Properties.Reported.Version
	wd, wr := was.Properties.Desired.Version, was.Properties.Reported.Version
	if ok && !(dd >= wd && dr >= wr && (dd > wd || dr > wr)) {
		return string(was.Encode()) == string(d.Encode()), was
	}
	h[d.Module] = d
	return true, d
}

// sync is what the uplink does when the link is up.
func (h hubCopy) sync(t *testing.T, l *Leaf) {
	t.Helper()
	for range 3 {
		again := false
		for _, d := range l.Documents() {
			stored, held := h.send(d)
			if stored {
				continue
			}
			again = true
			p, hp := d.Properties, held.Properties
			if err := l.Raise(t.Context(), d.Module, max(p.Desired.Version, hp.Desired.Version+1), max(p.Reported.Version, hp.Reported.Version+1)); err != nil {
				t.Fatal(err)
			}
		}
		if !again {
			return
		}
	}
	t.Fatal("the hub and the device do not agree")
}

// used says what each version of a section was seen to name.
type used map[string]map[uint64]string

func (u used) see(t *testing.T, section string, s twin.Section, last bool) {
	t.Helper()
	// Times and the commit say where a value came from, and are no part of it.
	text, _ := json.Marshal(twin.Section{Values: s.Values, Override: s.Override})
	if u[section] == nil {
		u[section] = map[uint64]string{}
	}
	if was, ok := u[section][s.Version]; ok && was != string(text) {
		t.Fatalf("version %d of %s was %s, and is %s", s.Version, section, was, text)
	}
	u[section][s.Version] = string(text)
	for v := range u[section] {
		if last && v > s.Version {
			t.Fatalf("%s went back from version %d to %d", section, v, s.Version)
		}
	}
}

// TestVersionsNeverGoBack lets everything happen to a device and its hub that can,
// in many orders. A version never names two things, and none goes back.
func TestVersionsNeverGoBack(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { versionsWith(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func versionsWith(t *testing.T, r *rand.Rand) {
	s := newSite(t)
	l := s.open()
	h, backup := hubCopy{}, hubCopy{}
	local, atHub := used{}, used{}
	desired := declared("a", "b")
	s.declare(l, desired)
	restart := func(change func()) {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		change()
		l = s.open()
	}
	for step := range 150 {
		module := string(rune('a' + r.IntN(2)))
		switch r.IntN(14) {
		case 0, 1: // a commit, in which modules come, go and are named back
			desired = declared()
			for _, name := range []string{"a", "b"} {
				if r.IntN(4) > 0 {
					desired.Modules = append(desired.Modules, declared(name).Modules...)
					desired.Modules[len(desired.Modules)-1].Twin.Desired = map[string]any{"interval": r.IntN(4)}
				}
			}
			s.declare(l, desired)
		case 2, 3, 4:
			conn, err := l.Connect("test")
			if err != nil {
				t.Fatal(err)
			}
			// Nobody answers for one that is not declared.
			_, _ = conn.Request(twin.Prefix("d1", module)+".twin.reported", fmt.Appendf(nil, `{"step":%d}`, step), patience)
			conn.Close()
		case 5, 6:
			_, _ = l.Override(t.Context(), module, by("ann", map[string]any{"interval": r.IntN(4)}), time.Hour)
		case 7:
			_, _ = l.Clear(t.Context(), module, "ann")
		case 8:
			restart(func() {})
		case 9: // the journal removed by hand: what the hub holds raises it again, before anybody looks
			h.sync(t, l)
			restart(func() {
				if err := os.RemoveAll(filepath.Join(s.config.StateDir, "twins")); err != nil {
					t.Fatal(err)
				}
			})
			for _, name := range []string{"a", "b"} { // of one that is not declared nobody is left to compare
				if _, ok := desired.Module(name); !ok {
					delete(local, "desired of "+name)
					delete(local, "reported of "+name)
				}
			}
			s.declare(l, desired)
			h.sync(t, l)
			backup = maps.Clone(h) // where device and hub both forgot a thing, nobody knows it
		case 10:
			backup = maps.Clone(h)
		case 11: // the hub restored from a backup
			h = maps.Clone(backup)
			h.sync(t, l)
		default:
			h.sync(t, l)
		}
		for _, d := range l.Documents() {
			if !d.Removed {
				local.see(t, "desired of "+d.Module, d.Properties.Desired, true)
				local.see(t, "reported of "+d.Module, d.Properties.Reported, true)
			}
		}
		for _, d := range h {
			atHub.see(t, "desired of "+d.Module, d.Properties.Desired, false)
			atHub.see(t, "reported of "+d.Module, d.Properties.Reported, false)
		}
	}
	h.sync(t, l)
	for _, d := range l.Documents() {
		if string(h[d.Module].Encode()) != string(d.Encode()) {
			t.Errorf("the hub holds another twin %q", d.Module)
		}
	}
}

// A journal that was removed while there is no hub: a module that runs has seen
// versions of desired, in its file, and is told higher ones.
func TestVersionsAreRecalledFromTheRunDirectory(t *testing.T) {
	s := newSite(t)
	l := s.open()
	d := declared("sensor")
	for i := range 5 {
		d.Modules[0].Twin.Desired = map[string]any{"interval": i}
		s.declare(l, d)
	}
	l.Close()
	if err := os.RemoveAll(filepath.Join(s.config.StateDir, "twins")); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(s.config.RunDir, "modules", "stray")
	if err := os.Mkdir(stray, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{`{"$version":9007199254740991}`, `{"$version":-1}`, `[`} { // what nobody wrote
		if err := os.WriteFile(filepath.Join(stray, desiredFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(t.Context(), s.config)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	}
	l = s.open()
	s.declare(l, d)
	if now := desiredOf(l, "sensor"); now.Version <= 5 || s.fileSays("sensor").Version != now.Version {
		t.Errorf("after 5 versions it is at %d", now.Version)
	}
}

const childEnv = "TIDEMARK_TEST_VERSIONS"

// TestVersionsAfterKill ends a process that changes twins by SIGKILL, wherever it
// is. What anybody was told before holds after it, in the twin and in the file.
func TestVersionsAfterKill(t *testing.T) {
	if dirs := os.Getenv(childEnv); dirs != "" {
		changeForEver(t, strings.Split(dirs, ":"))
		return
	}
	s := newSite(t)
	seen := used{}
	for round := range 12 {
		child := exec.Command(os.Args[0], "-test.run=^TestVersionsAfterKill$")
		child.Env = append(os.Environ(), childEnv+"="+s.config.StateDir+":"+s.config.RunDir+":"+fmt.Sprint(round))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		told := readTold(t, out, seen, func() { time.AfterFunc(time.Duration(round*7)*time.Millisecond, func() { child.Process.Kill() }) })
		_ = child.Wait() // killed
		if told == 0 {
			t.Fatal("the child said nothing")
		}
		l := s.open()
		e, _ := l.ledger.Get("sensor")
		seen.see(t, "desired", e.Document.Properties.Desired, true)
		seen.see(t, "reported", e.Document.Properties.Reported, true)
		if file := s.fileSays("sensor"); file.Version != e.Document.Properties.Desired.Version {
			t.Errorf("the file is at version %d, the twin at %d", file.Version, e.Document.Properties.Desired.Version)
		}
		l.Close()
		if w := s.warned(); w != "" {
			t.Error(w)
		}
	}
}

// readTold reads what a child was told, until it ends.
func readTold(t *testing.T, out io.Reader, seen used, first func()) (told int) {
	t.Helper()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		section, text, ok := strings.Cut(lines.Text(), " ")
		var got twin.Section
		if !ok || json.Unmarshal([]byte(text), &got) != nil {
			continue // cut off, or of the testing package
		}
		seen.see(t, section, got, false)
		if told++; told == 1 {
			first()
		}
	}
	return told
}

// changeForEver is the child: it changes a twin in every way, and says what a
// client of the module is told.
func changeForEver(t *testing.T, dirs []string) {
	s := &site{t: t, config: Config{Device: "d1", StateDir: dirs[0], RunDir: dirs[1], Listen: "127.0.0.1:0"}}
	s.config.Signal = func(context.Context, string, string) error { return nil }
	l := s.open()
	d := declared("sensor")
	d.Modules[0].Twin.Signal = "SIGHUP"
	s.declare(l, d)
	conn, err := l.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	sub, err := conn.SubscribeSync("devices.d1.modules.sensor.twin.desired")
	if err != nil || conn.Flush() != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			m, err := sub.NextMsg(time.Hour)
			if err != nil {
				return
			}
			fmt.Printf("desired %s\n", m.Data)
		}
	}()
	for i := 0; ; i++ {
		value := dirs[2] + "." + fmt.Sprint(i)
		switch i % 4 {
		case 0:
			d.Modules[0].Twin.Desired = map[string]any{"value": value}
			err = l.Declare(t.Context(), d)
		case 1:
			_, err = l.Override(t.Context(), "sensor", by("ann", map[string]any{"over": value}), time.Hour)
		case 2:
			var answer twin.Answer
			answer, err = report(t, conn, "sensor", fmt.Sprintf(`{"value":%q}`, value))
			fmt.Printf("reported {\"value\":%q,\"$version\":%d}\n", value, answer.Version)
		case 3:
			_, err = l.Clear(t.Context(), "sensor", "ann")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
