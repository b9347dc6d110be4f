package reconciler_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

// Images that exist. The last one is not signed.
const images = "app other third fourth unsigned fifth"

func image(name string) schema.Image {
	return schema.Image("registry.test/" + name + "@sha256:" + strings.Repeat("0", 63) + fmt.Sprint(strings.Index(images, name)%10))
}

// accept is a verifier that accepts all images but the unsigned one.
func accept(t testing.TB) *signing.Verifier {
	var signed []schema.Image
	for _, name := range strings.Fields(images) {
		if name != "unsigned" {
			signed = append(signed, image(name))
		}
	}
	return signingtest.Accept(t, signed...)
}

// world is an agent, its device, and the fleet repository.
type world struct {
	*testing.T
	*reconciler.Reconciler
	machine  *machine
	repo     *repo
	verifier *verifier
	twin     *twin
	lines    *lines
	deadline time.Duration              // of every revision; 0 is the default
	boot     string                     // of the machine, as the agent is told
	permits  func(schema.Desired) error // what the device's owner allows; nil is everything
	stop     func()                     // ends the agent and leaves the modules alone
}

// gate is the trial of every revision in these tests.
const gate = 30 * time.Second

// inWorld runs a test in a bubble with its own clock.
func inWorld(t *testing.T, test func(w *world)) {
	proofs := accept(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, proofs, t.TempDir())
		w.start()
		test(w)
		w.stop()
	})
}

func newWorld(t *testing.T, proofs reconciler.Verifier, dir string) *world {
	w := &world{T: t, machine: newMachine(t), repo: &repo{}, verifier: &verifier{proofs: proofs}, twin: &twin{}, lines: &lines{}}
	w.machine.declared = w.twin.knows
	w.machine.untouched = true
	w.Reconciler = &reconciler.Reconciler{Device: "hannover01", StateDir: dir}
	return w
}

// start starts the agent, as a new process does: all it knows is on the disk.
func (w *world) start() {
	w.Reconciler = &reconciler.Reconciler{
		Device: w.Device, StateDir: w.StateDir, Boot: w.boot,
		Source: w.repo, Renderer: w.repo, Verifier: w.verifier, Runtime: w.machine, Store: w.machine, Reporter: w.twin,
		Prober: w.machine, Output: w.machine,
		Log: slog.New(slog.NewTextHandler(w.lines, nil)), Permits: w.permits,
	}
	w.machine.exited, w.twin.handed = w.Kick, func() {}
	ctx, cancel := context.WithCancel(w.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Reconciler.Run(ctx); err != nil {
			w.Error(err)
		}
	})
	w.stop = func() { cancel(); running.Wait() }
	synctest.Wait()
}

// push commits a definition and says so to the agent.
func (w *world) push(modules ...schema.Module) string {
	w.machine.set(func() { w.machine.untouched = false })
	commit := w.repo.commit(schema.Desired{Device: w.Device, Gate: schema.Duration(gate), Deadline: schema.Duration(w.deadline), Modules: modules})
	w.Moved()
	synctest.Wait()
	return commit
}

// settle pushes and waits until it is last-good.
func (w *world) settle(modules ...schema.Module) string {
	w.Helper()
	commit := w.push(modules...)
	time.Sleep(gate + 3*time.Second) // and what first probes take
	w.phase(schema.PhaseHealthy)
	if good := w.Report().LastGood.Commit; good != commit {
		w.Fatalf("last-good is %s, want %s", good, commit)
	}
	w.machine.done()
	return commit
}

// after lets time pass, and the agent finish what it then does.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) phase(want string) {
	w.Helper()
	synctest.Wait()
	if report := w.Report(); report.Phase != want {
		w.Fatalf("phase is %s, want %s: %+v\n%s", report.Phase, want, report, w.lines)
	}
}

func (w *world) runs(want ...string) {
	w.Helper()
	synctest.Wait()
	if got := w.machine.running(); got != fmt.Sprint(want) {
		w.Fatalf("%v run, want %v\n%s", got, want, w.lines)
	}
}

// did says what the runtime was told to do. What goes on at the same time is in
// the order of names.
func (w *world) did(want ...string) {
	w.Helper()
	synctest.Wait()
	got := w.machine.done()
	for i := range got {
		for j := i; j > 0 && verb(got[j-1]) == verb(got[j]) && got[j-1] > got[j]; j-- {
			got[j-1], got[j] = got[j], got[j-1]
		}
	}
	w.equal(got, want)
}

func (w *world) didInOrder(want ...string) {
	w.Helper()
	synctest.Wait()
	w.equal(w.machine.done(), want)
}

func (w *world) didInAnyOrder(want ...string) {
	w.Helper()
	synctest.Wait()
	did := w.machine.done()
	slices.Sort(did)
	slices.Sort(want)
	w.equal(did, want)
}

func (w *world) equal(got, want []string) {
	w.Helper()
	if !slices.Equal(got, want) {
		w.Fatalf("the runtime did %v, want %v\n%s", got, want, w.lines)
	}
}

func verb(entry string) string { return entry[:strings.IndexByte(entry, ' ')] }

// module is a definition; its image has its name unless another is given.
func module(name string, change ...func(*schema.Module)) schema.Module {
	m := schema.Module{
		Name: name, Image: image("app"), Status: schema.StatusRunning, Network: schema.NetworkNone,
		Restart: schema.Restart{Policy: schema.RestartAlways, Min: schema.Duration(10 * time.Second), Max: schema.Duration(5 * time.Minute)},
	}
	for _, c := range change {
		c(&m)
	}
	return m
}

func from(name string) func(*schema.Module) { return func(m *schema.Module) { m.Image = image(name) } }

func env(value string) func(*schema.Module) {
	return func(m *schema.Module) { m.Env = map[string]string{"V": value} }
}

func dependsOn(name, condition string) func(*schema.Module) {
	return func(m *schema.Module) { m.DependsOn = map[string]schema.Dependency{name: {Condition: condition}} }
}

// repo is the fleet repository: Source and Renderer.
type repo struct {
	mu      sync.Mutex
	commits int
	tip     string
	took    string // the commit that was accepted last
	trees   map[string]schema.Desired
	broken  map[string]error // what rendering a commit answers
	err     error            // what a fetch answers
	fetches int
}

func (r *repo) commit(d schema.Desired) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trees == nil {
		r.trees, r.broken = map[string]schema.Desired{}, map[string]error{}
	}
	r.commits++
	r.tip = fmt.Sprintf("%040d", r.commits)
	r.trees[r.tip] = d
	return r.tip
}

func (r *repo) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

var errOffline = errors.New("dial tcp: network is unreachable")

func (r *repo) Fetch(context.Context) (schema.Revision, fs.FS, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetches++
	if r.err != nil {
		return schema.Revision{}, nil, r.err
	}
	if r.tip == "" {
		return schema.Revision{}, nil, errors.New("the branch does not exist")
	}
	r.took = r.tip
	revision, tree := r.at(r.tip)
	return revision, tree, nil
}

func (r *repo) Accepted() (schema.Revision, fs.FS, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.took == "" {
		return schema.Revision{}, nil, errors.New("no commit was accepted yet")
	}
	revision, tree := r.at(r.took)
	return revision, tree, nil
}

func (r *repo) at(commit string) (schema.Revision, fs.FS) {
	return schema.Revision{Commit: commit, Ref: "main"}, fstest.MapFS{"commit": {Data: []byte(commit)}}
}

func (r *repo) Render(_ context.Context, tree fs.FS, _ string) (schema.Desired, error) {
	commit, err := fs.ReadFile(tree, "commit")
	if err != nil {
		return schema.Desired{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trees[string(commit)], r.broken[string(commit)]
}

// verifier counts, and fails when told to.
type verifier struct {
	proofs reconciler.Verifier
	mu     sync.Mutex
	asked  int
	err    error
}

func (v *verifier) Verify(ctx context.Context, image schema.Image) (signing.Verified, error) {
	v.mu.Lock()
	v.asked++
	err := v.err
	v.mu.Unlock()
	if err != nil {
		return signing.Verified{}, err
	}
	return v.proofs.Verify(ctx, image)
}

// count is how often it was asked.
func (v *verifier) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.asked
}

// refuse makes every answer from now on err; nil ends that.
func (v *verifier) refuse(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
}

// twin is the Reporter.
type twin struct {
	mu       sync.Mutex
	declared schema.Desired
	reports  []schema.Report
	err      error
	handed   func() // called with each report
}

func (t *twin) Declare(_ context.Context, desired schema.Desired) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.declared = desired
	}
	return t.err
}

func (t *twin) Report(_ context.Context, report schema.Report) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reports = append(t.reports, report)
	t.handed()
	return t.err
}

// fail makes every Declare and Report end with err from now on.
func (t *twin) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
}

func (t *twin) knows(module string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.declared.Module(module)
	return ok
}

func (t *twin) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.reports)
}

// lines is the log.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
	n  int
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n++
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.n
}
