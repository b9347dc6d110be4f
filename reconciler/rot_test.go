package reconciler_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/reconciler/gitsource"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/schema/sandbox"
)

// TestMain lets the test binary be the child that evaluates definitions.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "evaluate" {
		os.Exit(sandbox.Main(os.Stdin, os.Stdout))
	}
	os.Exit(m.Run())
}

// fleet is a device that follows a real repository and renders in real child
// processes; its machine is one in memory.
type fleet struct {
	*world
	git *harness.Git
	dir string // of the source
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{world: newWorld(t, accept(t), t.TempDir()), git: harness.NewGit(t), dir: filepath.Join(t.TempDir(), "git")}
	f.machine.untouched = false
	files := map[string]string{
		"cue.mod/module.cue": "module: \"example.com/fleet@v0\"\nlanguage: version: \"v0.17.0\"\n",
		"fleet.cue":          "package fleet\n\nimport \"github.com/tidemark-edge/tidemark/schema\"\n\n#device: schema.#Device\n",
	}
	for name, source := range schema.Definitions() {
		files["cue.mod/pkg/"+schema.DefinitionsPath+"/"+name] = string(source)
	}
	f.git.Commit(files)
	return f
}

// define commits a definition of the device.
func (f *fleet) define(value string) string {
	return f.git.Commit(map[string]string{"devices/hannover01/device.cue": fmt.Sprintf(
		"package fleet\n\ndevice: #device & {\n\tname: \"hannover01\"\n\tgate: \"100ms\"\n\tmodules: sensor: {image: %q, env: V: %q}\n}\n", image("app"), value)})
}

func (f *fleet) source() *gitsource.Source {
	f.Helper()
	s, err := gitsource.Open(f.dir, schema.Repository{URL: f.git.URL(), Branch: "main", Verify: schema.VerifyOff}, nil)
	if err != nil {
		f.Fatal(err)
	}
	return s
}

// begin starts the agent; nothing is fetched by the clock.
func (f *fleet) begin() {
	s := f.source()
	f.Reconciler = &reconciler.Reconciler{
		Device: f.Device, StateDir: f.StateDir, Poll: time.Hour,
		Source: s, Renderer: sandbox.Renderer{}, Verifier: f.verifier, Runtime: f.machine, Store: f.machine, Reporter: f.twin,
		Prober: f.machine, Output: f.machine, Log: slog.New(slog.NewTextHandler(f.lines, nil)),
	}
	f.machine.exited, f.twin.handed = f.Kick, func() {}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = f.Reconciler.Run(ctx) })
	f.stop = func() { cancel(); running.Wait(); s.Close() }
}

// becomes waits until commit is last-good; it is never refused.
func (f *fleet) becomes(commit string) {
	f.Helper()
	harness.Eventually(f.T, func() error {
		r := f.Report()
		if r.Refused != nil {
			f.Fatalf("refused: %+v\n%s", r.Refused, f.lines)
		}
		if r.LastGood.Commit != commit {
			return fmt.Errorf("last-good is %s, want %s: %+v\n%s", r.LastGood.Commit, commit, r, f.lines)
		}
		return nil
	})
	for _, e := range f.History() {
		if e.Kind == schema.EventRefused {
			f.Fatalf("history: %+v", e)
		}
	}
}

// hidden is a place in the clone's largest pack, from byte at on, where damage is
// noticed by reading a definition, and by nothing else.
func (f *fleet) hidden(at int) (pack string, place int) {
	f.Helper()
	packs, _ := filepath.Glob(filepath.Join(f.dir, "clone", "objects", "pack", "*.pack"))
	for _, p := range packs {
		if pack == "" || size(f.T, p) > size(f.T, pack) {
			pack = p
		}
	}
	for ; at < size(f.T, pack)-20; at += 100 {
		copied := &fleet{world: f.world, git: f.git, dir: f.TempDir()}
		must(f.T, os.CopyFS(copied.dir, os.DirFS(f.dir)))
		name, _ := filepath.Rel(f.dir, pack)
		flipBit(f.T, filepath.Join(copied.dir, name), at)
		s := copied.source()
		_, tree, err := s.Accepted()
		if err == nil {
			_, err = schema.ReadTree(f.Context(), tree)
			s.Close()
			if err != nil {
				return pack, at
			}
			continue
		}
		s.Close()
	}
	f.Fatal("no place that only reading finds")
	return "", 0
}

func size(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return int(info.Size())
}

// flipBit flips a bit where it is, for whoever has the file open, too.
func flipBit(t *testing.T, path string, at int) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	b := make([]byte, 1)
	_, err = file.ReadAt(b, int64(at))
	must(t, err)
	b[0] ^= 0x10
	_, err = file.WriteAt(b, int64(at))
	must(t, err)
}

// What rots in the clone is noticed while a tree is rendered, and was taken for
// the commit's fault, for good.
func TestRotInTheCloneRefusesNoCommit(t *testing.T) {
	f := newFleet(t)
	one := f.define("1")
	f.begin()
	f.becomes(one)
	for i, at := range []int{1500, 4000, 6500} {
		pack, place := f.hidden(at)
		flipBit(t, pack, place)
		next := f.define(fmt.Sprint(2 + i))
		f.Moved()
		f.becomes(next)
		f.stop() // and where it is found after a start
		pack, place = f.hidden(at)
		flipBit(t, pack, place)
		next = f.define(fmt.Sprint(100 + i))
		f.begin()
		f.becomes(next)
	}
	f.stop()
	// An agent that runs may have read the object before, and have it in memory.
	if got := strings.Count(f.lines.String(), "the copy of the repository is damaged"); got < 3 {
		t.Errorf("damage was found %d times, want 3 at least:\n%s", got, f.lines)
	}
}

// While the link is away, a commit that was accepted and cannot be read is
// trouble, and what runs goes on; it is rendered when the link is back.
func TestRotInTheCloneWhileOfflineIsTrouble(t *testing.T) {
	f := newFleet(t)
	one := f.define("1")
	f.begin()
	f.becomes(one)
	f.stop()

	s := f.source()
	two := f.define("2")
	if _, _, err := s.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Close()
	pack, place := f.hidden(3000)
	flipBit(t, pack, place)
	away := f.git.Dir + ".away"
	must(t, os.Rename(f.git.Dir, away))
	f.begin()
	const want = "the copy of the repository is damaged: fetched anew when the link is back"
	harness.Eventually(t, func() error {
		r := f.Report()
		if r.Refused != nil {
			t.Fatalf("refused: %+v", r.Refused)
		}
		if !strings.Contains(r.LastDesiredStatus.Description, want) {
			return fmt.Errorf("reported %+v\n%s", r, f.lines)
		}
		return nil
	})
	if r := f.Report(); r.Revision.Commit != one || r.LastGood.Commit != one {
		t.Errorf("reported %+v", r)
	}
	must(t, os.Rename(away, f.git.Dir))
	f.Moved()
	f.becomes(two)
	f.stop()
}
