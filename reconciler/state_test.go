package reconciler

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

var someImage = schema.Image("registry.test/app@sha256:" + strings.Repeat("0", 64))

func someState() state {
	revision := schema.Revision{Commit: strings.Repeat("a", 40), Ref: "main", Signer: "ann", Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	desired := schema.Desired{
		Revision: revision, Device: "hannover01", Gate: schema.Duration(30 * time.Second),
		Tags: map[string]any{"site": "hannover"},
		Modules: []schema.Module{{
			Name: "sensor", Image: someImage, Status: schema.StatusRunning,
			Env:    map[string]string{"V": "<1> & \u2028"},
			Limits: schema.Limits{Memory: 64 << 20, CPU: 0.5},
			Twin:   schema.TwinSpec{Desired: map[string]any{"big": json.Number("9007199254740993"), "small": json.Number("0.10")}},
		}},
	}
	why := schema.Refusal{Revision: revision, Phase: schema.PhaseGating, Module: "sensor", Reason: "exited", At: revision.Time}
	return state{Target: desired, Trial: true, LastGood: desired, Refused: &why, Bad: []schema.Refusal{why}}
}

func TestStateSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	want := someState()
	if err := want.save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := loadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("loaded %+v\nwant   %+v", got, want)
	}
	if m := got.Target.Modules[0]; m.Hash() != want.Target.Modules[0].Hash() {
		t.Error("the module's hash is another one")
	}
	info, err := os.Stat(filepath.Join(dir, stateFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: a definition may hold what is not for everybody", info.Mode(), err)
	}
}

func TestNoStateIsNoError(t *testing.T) {
	if s, err := loadState(t.TempDir()); err != nil || s.accepted() {
		t.Errorf("loaded %+v, %v", s, err)
	}
}

// envelop wraps any inner state as encodeState does.
func envelop(version int, inner string) string {
	sum := sha256.Sum256([]byte(inner))
	return fmt.Sprintf(`{"version":%d,"sha256":"%s","state":%s}`, version, hex.EncodeToString(sum[:]), inner)
}

func TestBrokenStates(t *testing.T) {
	whole, err := encodeState(someState())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ content, want string }{
		"empty":          {"", "EOF"},
		"zeros":          {strings.Repeat("\x00", 4096), "invalid character"},
		"cut short":      {string(whole[:len(whole)/2]), "unexpected EOF"},
		"a bit flipped":  {strings.Replace(string(whole), "sensor", "sensos", 1), "checksum"},
		"twice":          {string(whole) + string(whole), "more than one"},
		"another kind":   {`[]`, "cannot unmarshal"},
		"of the future":  {envelop(2, `{}`), "version 2, want 1"},
		"not a state":    {envelop(1, `"x"`), "cannot unmarshal"},
		"no state":       {`{"version":1,"sha256":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}`, "EOF"},
		"a tag":          {envelop(1, `{"target":{"modules":[{"name":"a","image":"registry.test/app:latest"}]}}`), "module a: image"},
		"no name":        {envelop(1, `{"lastGood":{"modules":[{"name":"../a","image":"`+string(someImage)+`"}]}}`), `module: name "../a"`},
		"larger than we": {strings.Repeat(" ", maxState+1), "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, stateFile)
			if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := loadState(dir)
			if err == nil || !strings.Contains(err.Error(), tc.want) || s.accepted() {
				t.Errorf("loaded %+v, %v, want an error with %q", s, err, tc.want)
			}
			aside, _ := filepath.Glob(path + ".broken-*")
			if len(aside) != 1 {
				t.Fatalf("set aside: %q", aside)
			}
			if b, err := os.ReadFile(aside[0]); err != nil || string(b) != tc.content {
				t.Errorf("not set aside: %v", err)
			}
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("still in its place: %v", err)
			}
			if s, err := loadState(dir); err != nil || s.accepted() {
				t.Errorf("the next start: %+v, %v", s, err)
			}
		})
	}
}

// An agent that was taken back to an older version still knows what ran.
func TestAStateOfANewerAgentIsUnderstood(t *testing.T) {
	s, err := decodeState([]byte(envelop(1, `{"target":{"revision":{"commit":"aa"},"novelty":{}},"other":[1]}`)))
	if err != nil || !s.accepted() {
		t.Errorf("decoded %+v, %v", s, err)
	}
}

func TestAStateThatCannotBeWrittenLeavesTheOldOne(t *testing.T) {
	dir := t.TempDir()
	before := someState()
	if err := before.save(dir); err != nil {
		t.Fatal(err)
	}
	// A disk that takes no more: this process may write files of 16 bytes.
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 16, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
	if err := before.keep().save(dir); err == nil {
		t.Error("saved")
	}
	if s, err := loadState(dir); err != nil || !s.Trial {
		t.Errorf("loaded %+v, %v", s, err)
	}
}

func TestBadCommitsAreRememberedWithinBounds(t *testing.T) {
	s := someState()
	for i := range 100 {
		s = s.rollBack(schema.Refusal{Revision: schema.Revision{Commit: fmt.Sprint(i)}})
	}
	if _, known := s.bad("99"); !known || len(s.Bad) != maxBad {
		t.Errorf("%d bad commits, the last one known: %v", len(s.Bad), known)
	}
}

func FuzzDecodeState(f *testing.F) {
	whole, err := encodeState(someState())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte(envelop(1, `{"target":{"modules":[{}]}}`)))
	f.Add([]byte(`{"version":1,"sha256":"","state":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err != nil {
			return
		}
		again, err := encodeState(s)
		if err != nil {
			t.Fatal(err)
		}
		s, err = decodeState(again)
		if err != nil {
			t.Fatalf("decoded, encoded, and not decoded: %v", err)
		}
		if b, err := encodeState(s); err != nil || !bytes.Equal(b, again) {
			t.Errorf("encoded %s, then %s", again, b)
		}
	})
}

// What counts is what is on the disk before anything is done: the next moment
// may be the machine's last.
func TestTheStartOfATrialIsCountedBeforeAnythingIsDone(t *testing.T) {
	dir, s := t.TempDir(), someState()
	s.Target.Revision.Commit = strings.Repeat("b", 40)
	s.Starts = starts{Boot: "one"}
	if err := s.save(dir); err != nil {
		t.Fatal(err)
	}
	for i, want := range []starts{{"one", 0, 1}, {"two", 1, 2}, {"two", 1, 3}, {"three", 2, 4}} {
		(&Reconciler{StateDir: dir, Boot: want.Boot}).load()
		if s, err := loadState(dir); err != nil || s.Starts != want {
			t.Errorf("start %d: %+v, %v, want %+v", i, s.Starts, err, want)
		}
	}
}
