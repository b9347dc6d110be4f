package reconciler_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// machine is a reconciler.Runtime in memory. It fails the test when the
// reconciler breaks a promise: a start of what is not verified or not on the
// disk, a second running container of a module, a touch before the first
// accepted revision.
type machine struct {
	t testing.TB

	mu         sync.Mutex
	containers map[string]*schema.Container
	disk       map[schema.Image]bool
	capacity   int      // images that fit on the disk; 0 is no bound
	journal    []string // what was done, in order
	pids       int
	last       map[string]int                   // the number of the last process, by module
	prunes     int                              // that deleted what they could
	twins      bool                             // two containers of any module may run at a time
	beside     map[string]bool                  // modules that were started to run beside their other container
	untouched  bool                             // nothing may be touched
	lives      map[string]life                  // by module: how its processes end; absent: they do not
	faults     map[string]int                   // by method: how many of the next calls fail; negative is all
	stuck      map[schema.Image]chan struct{}   // pulls that end when the channel is closed
	slow       map[string]time.Duration         // by module: what a removal takes
	lag        map[string]time.Duration         // by module: what a start takes
	blink      time.Duration                    // what it takes to say what was observed
	sick       map[string]error                 // by module and probe, "sensor liveness": what the module answers
	hung       map[string]chan struct{}         // probes that are answered when the channel is closed, whatever their context says
	asked      map[string]int                   // by module and probe: how often it was asked
	pruning    func()                           // called while it prunes
	exited     func()                           // task event
	declared   func(module string) (known bool) // whether the module's twin was declared
	clock      func() time.Time                 // the runtime's wall clock
}

// life is how a process ends by itself.
type life struct {
	after time.Duration
	code  int
}

func newMachine(t testing.TB) *machine {
	return &machine{
		t: t, containers: map[string]*schema.Container{}, disk: map[schema.Image]bool{},
		lives: map[string]life{}, slow: map[string]time.Duration{}, lag: map[string]time.Duration{}, faults: map[string]int{}, stuck: map[schema.Image]chan struct{}{},
		sick: map[string]error{}, hung: map[string]chan struct{}{}, beside: map[string]bool{}, asked: map[string]int{}, last: map[string]int{},
		exited: func() {}, pruning: func() {}, declared: func(string) bool { return true }, clock: time.Now,
	}
}

var errFault = errors.New("the machine is out of order")

// begin is the start of every method; the caller holds m.mu.
func (m *machine) begin(ctx context.Context, method string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if n := m.faults[method]; n != 0 {
		m.faults[method] = n - 1
		return fmt.Errorf("%s: %w", method, errFault)
	}
	if m.untouched && method != "observe" {
		m.t.Errorf("%s before a revision was accepted", method)
	}
	return nil
}

func (m *machine) Observe(ctx context.Context) (schema.Observed, error) {
	observed, blink, err := m.look(ctx)
	if blink > 0 {
		select {
		case <-time.After(blink):
		case <-ctx.Done():
		}
	}
	return observed, err
}

func (m *machine) look(ctx context.Context) (observed schema.Observed, blink time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "observe"); err != nil {
		return schema.Observed{}, 0, err
	}
	for _, id := range slices.Sorted(maps.Keys(m.containers)) {
		observed.Containers = append(observed.Containers, *m.containers[id])
	}
	return observed, m.blink, nil
}

func (m *machine) Room(ctx context.Context, proofs []signing.Verified) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "room"); err != nil {
		return err
	}
	missing := 0
	for _, proof := range proofs {
		if proof.Image() == "" {
			m.t.Error("asked for room with no proof")
		}
		if !m.disk[proof.Image()] {
			missing++
		}
	}
	if free := m.capacity - len(m.disk); m.capacity > 0 && missing > free {
		return &schema.NoRoomError{Path: "/disk", Download: int64(missing) << 20, Free: int64(free) << 20}
	}
	return nil
}

func (m *machine) Pull(ctx context.Context, proof signing.Verified) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "pull"); err != nil {
		return err
	}
	if proof.Image() == "" {
		m.t.Error("pulled with no proof")
	}
	if m.disk[proof.Image()] {
		return nil
	}
	if stuck := m.stuck[proof.Image()]; stuck != nil {
		m.log("pull hangs", name(proof.Image()))
		m.mu.Unlock()
		select {
		case <-stuck:
		case <-ctx.Done():
		}
		m.mu.Lock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if m.capacity > 0 && len(m.disk) >= m.capacity {
		return fmt.Errorf("write layer: %w", syscall.ENOSPC)
	}
	m.log("pull", name(proof.Image()))
	m.disk[proof.Image()] = true
	return nil
}

func (m *machine) Start(ctx context.Context, module schema.Module, commit string, proof signing.Verified) error {
	m.mu.Lock()
	lag := m.lag[module.Name]
	m.mu.Unlock()
	if lag > 0 {
		time.Sleep(lag)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "start"); err != nil {
		return err
	}
	if proof.Image() != module.Image || proof.Image() == "" {
		return fmt.Errorf("start %s: no proof for %s", module.Name, module.Image)
	}
	if !m.disk[module.Image] {
		return fmt.Errorf("start %s: image %s is not on the disk", module.Name, module.Image)
	}
	if !m.declared(module.Name) {
		m.t.Errorf("started %s before its twin was declared", module.Name)
	}
	id := module.Name + "." + module.Hash()[:8]
	if c := m.containers[id]; c != nil && c.State == schema.StateRunning {
		return nil
	}
	m.containers[id] = &schema.Container{ID: id, Module: module.Name, Image: module.Image, Hash: module.Hash(), Commit: commit}
	m.log("start", module.Name)
	if module.Update.Strategy == schema.UpdateStartThenStop {
		m.beside[module.Name] = true
	}
	m.launch(m.containers[id])
	return nil
}

func (m *machine) Restart(ctx context.Context, id string, restarts int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "restart"); err != nil {
		return err
	}
	c := m.containers[id]
	if c == nil {
		return fmt.Errorf("restart %s: no such container", id)
	}
	if c.State == schema.StateRunning {
		return nil
	}
	if c.State == schema.StatePaused {
		m.log("resume", c.Module)
		c.State = schema.StateRunning
		return nil
	}
	c.Restarts = restarts
	m.log("restart", c.Module)
	m.launch(c)
	return nil
}

func (m *machine) Stop(ctx context.Context, id, reason string) error {
	m.takeTime(ctx, id)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "stop"); err != nil {
		return err
	}
	c := m.containers[id]
	if c == nil || c.PID == 0 {
		return nil
	}
	m.log("stop", c.Module)
	c.State, c.PID, c.ExitCode, c.ExitedAt, c.Ended = schema.StateExited, 0, 143, m.clock(), reason
	m.exited()
	return nil
}

func (m *machine) Remove(ctx context.Context, id string) error {
	m.takeTime(ctx, id)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "remove"); err != nil {
		return err
	}
	if c := m.containers[id]; c != nil {
		m.log("remove", id[:min(len(id), max(len(c.Module), 1))])
		delete(m.containers, id)
	}
	return nil
}

// Tail is the number of the process that ran last as the module.
func (m *machine) Tail(module string, lines int) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if lines != 10 {
		m.t.Errorf("asked for %d lines", lines)
	}
	return fmt.Sprintf("process %d of %s says goodbye", m.last[module], module)
}

// takeTime is what the end of a module takes.
func (m *machine) takeTime(ctx context.Context, id string) {
	m.mu.Lock()
	var slow time.Duration
	if c := m.containers[id]; c != nil {
		slow = m.slow[c.Module]
	}
	m.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
		}
	}
}

// Probe answers what the test says. Probes of these tests are commands, which
// say what they are.
func (m *machine) Probe(ctx context.Context, c schema.Container, probe schema.Probe) error {
	m.mu.Lock()
	what := c.Module + " " + probe.Exec.Command[0]
	m.asked[what]++
	hung := m.hung[what]
	m.mu.Unlock()
	if hung != nil {
		<-hung
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := m.containers[c.ID]; now == nil || now.PID != c.PID || now.State != schema.StateRunning {
		return schema.ErrNotAsked
	}
	return m.sick[what]
}

func (m *machine) Prune(ctx context.Context, keep []schema.Image) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pruning()
	if err := m.begin(ctx, "prune"); err != nil {
		return err
	}
	maps.DeleteFunc(m.disk, func(image schema.Image, _ bool) bool { return !slices.Contains(keep, image) })
	m.prunes++
	return nil
}

// launch runs a process in c; the caller holds m.mu.
func (m *machine) launch(c *schema.Container) {
	beside := 0
	for _, other := range m.containers {
		if other != c && other.Module == c.Module && other.State == schema.StateRunning {
			beside++
		}
		if !m.twins && !m.beside[c.Module] && other != c && other.Module == c.Module && other.State == schema.StateRunning {
			m.t.Errorf("%s runs twice: %s and %s", c.Module, other.ID, c.ID)
		}
	}
	if beside > 1 && !m.twins {
		m.t.Errorf("%s runs three times", c.Module)
	}
	m.pids++
	m.last[c.Module] = m.pids
	c.State, c.PID, c.StartedAt, c.ExitedAt = schema.StateRunning, m.pids, m.clock(), time.Time{}
	c.ExitCode, c.OOMKilled, c.Ended = 0, false, ""
	if life, mortal := m.lives[c.Module]; mortal {
		id, pid := c.ID, c.PID
		time.AfterFunc(life.after, func() { m.end(id, pid, life.code) })
	}
}

// end is the process's own end.
func (m *machine) end(id string, pid, code int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.containers[id]; c != nil && c.PID == pid {
		m.log("exit", c.Module)
		c.State, c.PID, c.ExitCode, c.ExitedAt = schema.StateExited, 0, code, m.clock()
		m.exited()
	}
}

// crash ends whatever runs as the module.
func (m *machine) crash(module string, code int) {
	for _, c := range m.all() {
		if c.Module == module && c.State == schema.StateRunning {
			m.end(c.ID, c.PID, code)
		}
	}
}

// pause freezes the processes of a container.
func (m *machine) pause(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.containers[id]; c != nil && c.State == schema.StateRunning {
		c.State = schema.StatePaused
		m.exited()
	}
}

// reboot ends every process without a trace.
func (m *machine) reboot() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.containers {
		c.State, c.PID, c.ExitCode, c.StartedAt, c.ExitedAt, c.Ended = schema.StateCreated, 0, 0, time.Time{}, time.Time{}, ""
	}
}

// plant puts a container there that nobody declared.
func (m *machine) plant(c schema.Container) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.containers[c.ID] = &c
}

// set changes the machine's behaviour.
func (m *machine) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *machine) all() []schema.Container {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []schema.Container
	for _, id := range slices.Sorted(maps.Keys(m.containers)) {
		all = append(all, *m.containers[id])
	}
	return all
}

// running lists the modules that run.
func (m *machine) running() string {
	var names []string
	for _, c := range m.all() {
		if c.State == schema.StateRunning {
			names = append(names, c.Module)
		}
	}
	return fmt.Sprint(names)
}

// container is the only container of a module.
func (m *machine) container(module string) schema.Container {
	m.t.Helper()
	var found []schema.Container
	for _, c := range m.all() {
		if c.Module == module {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		m.t.Fatalf("%d containers of %s: %+v", len(found), module, found)
	}
	return found[0]
}

func (m *machine) log(what, who string) { m.journal = append(m.journal, what+" "+who) }

// done is the journal since it was asked for last.
func (m *machine) done() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	journal := m.journal
	m.journal = nil
	return journal
}

// name is the last element of an image's repository.
func name(image schema.Image) string {
	repository := image.Repository()
	for i := len(repository) - 1; i >= 0; i-- {
		if repository[i] == '/' {
			return repository[i+1:]
		}
	}
	return repository
}
