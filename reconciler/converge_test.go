package reconciler_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
)

// FuzzConvergence plays any sequence of commits, crashes and faults against an
// agent. Whatever happened: once faults stop, the device converges to the newest
// commit and stays there, and goes back to it from a commit that fails. The
// machine watches meanwhile that nothing starts unverified, no module runs
// twice, and nothing is touched before the first accepted revision.
func FuzzConvergence(f *testing.F) {
	proofs := accept(f)
	for _, seed := range []string{
		"", "p0000", "p1234c0c1t9", "p1111t9p3333r", "s1p1111t2p2222S1", "f09p1234t9f29f39p4321", "p7777bt5p1111kt1b",
		"o1p1111o0t9o1k", "p1111d0t1d1a0t1a9", "l03p1111t9p2222t9L", "i1p1111t9i1m0t1", "p1818p8181a0a1a2t9",
	} {
		f.Add([]byte(seed))
	}
	for seed := range uint64(20) {
		f.Add(anyScript(rand.New(rand.NewPCG(seed, 0))))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 60 {
			script = script[:60]
		}
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, proofs, t.TempDir())
			w.start()
			w.play(script)
			w.mend()
			good := []schema.Module{module("a"), module("b", from("other"), dependsOn("a", schema.ConditionStarted)), module("d", env("9"))}
			w.converges(good)
			w.rollsBack(good)
			w.stop()
		})
	})
}

// anyScript is a script in which about half of the bytes are commands.
func anyScript(r *rand.Rand) []byte {
	const letters = "pppclLfkrmadosSibttt"
	script := make([]byte, 60)
	for i := range script {
		script[i] = byte(r.IntN(256))
		if r.IntN(2) == 0 {
			script[i] = letters[r.IntN(len(letters))]
		}
	}
	return script
}

// play does what the script says: a letter, and what it needs.
func (w *world) play(script []byte) {
	next := func() (b byte) {
		if len(script) > 0 {
			b, script = script[0], script[1:]
		}
		return b
	}
	names := []string{"a", "b", "c", "d"}
	pick := func() string { return names[next()%4] }
	for len(script) > 0 {
		m := w.machine
		switch next() {
		case 'p':
			w.pushAny(names, next)
		case 'c':
			m.crash(pick(), int(next()%3))
		case 'l':
			m.set(func() { m.lives[pick()] = life{time.Duration(next()) * time.Second, int(next() % 3)} })
		case 'L':
			m.set(func() { clear(m.lives) })
		case 'f':
			method := []string{"observe", "pull", "start", "restart", "remove", "prune"}[next()%6]
			m.set(func() { m.faults[method] = int(next() % 16) })
		case 'k':
			w.stop()
			w.start()
		case 'r':
			w.stop()
			m.reboot()
			w.start()
		case 'm':
			gone := pick()
			m.set(func() {
				maps.DeleteFunc(m.containers, func(_ string, c *schema.Container) bool { return c.Module == gone })
			})
		case 'a':
			id := pick()
			m.plant(schema.Container{ID: "by-hand-" + id, State: schema.StateRunning, PID: 99})
		case 'd':
			id := pick()
			m.plant(schema.Container{ID: "second-" + id, Module: id, Hash: "another", State: []string{schema.StateExited, schema.StateCreated}[next()%2]})
		case 'o':
			w.repo.set(func() { w.repo.err = []error{nil, errOffline}[next()%2] })
		case 's':
			m.set(func() { m.stuck[image([]string{"app", "other", "third"}[next()%3])] = make(chan struct{}) })
		case 'S':
			m.unstick()
		case 'i':
			m.set(func() { delete(m.disk, image([]string{"app", "other", "third"}[next()%3])) })
		case 'b':
			m.set(func() { m.slow[pick()] = time.Duration(next()) * time.Second })
		case 't':
			time.Sleep(time.Duration(next()%64) * 2 * time.Second)
		}
		synctest.Wait()
	}
}

// pushAny commits any definition.
func (w *world) pushAny(names []string, next func() byte) {
	d := schema.Desired{Device: w.Device, Gate: schema.Duration(gate)}
	signed := true
	for i, name := range names {
		b := next()
		if b%8 == 0 {
			continue
		}
		m := module(name, env(string('0'+b/8%4)))
		m.Image = image([]string{"app", "app", "other", "third"}[b%4])
		if b%32 == 30 {
			m.Image, signed = image("unsigned"), false
		}
		if b%16 == 15 {
			m.Status = schema.StatusStopped
		}
		if i > 0 && b&1 == 1 {
			dependsOn(names[i-1], []string{schema.ConditionStarted, schema.ConditionHealthy}[b/2%2])(&m)
		}
		m.Restart.Policy = []string{schema.RestartAlways, schema.RestartOnFailure, schema.RestartNever}[b/4%3]
		d.Modules = append(d.Modules, m)
	}
	if signed {
		w.machine.set(func() { w.machine.untouched = false })
	}
	w.repo.commit(d)
	w.Moved()
}

// mend ends all faults.
func (w *world) mend() {
	w.repo.set(func() { w.repo.err = nil })
	w.machine.unstick()
	w.machine.set(func() { clear(w.machine.lives); clear(w.machine.faults); clear(w.machine.slow) })
}

func (m *machine) unstick() {
	m.set(func() {
		for _, stuck := range m.stuck {
			close(stuck)
		}
		clear(m.stuck)
	})
}

func (w *world) converges(modules []schema.Module) {
	w.Helper()
	commit := w.push(modules...)
	after(20 * time.Minute)
	w.phase(schema.PhaseHealthy)
	w.isExactly(modules)
	if good := w.Report().LastGood.Commit; good != commit {
		w.Fatalf("last-good is %s, want %s\n%s", good, commit, w.lines)
	}
	w.machine.done()
	after(20 * time.Minute)
	w.did()
}

func (w *world) rollsBack(good []schema.Module) {
	w.Helper()
	w.machine.set(func() { w.machine.lives["c"] = life{3 * time.Second, 1} })
	w.push(module("c"), module("d", env("bad")))
	w.repo.set(func() { w.repo.err = errOffline })
	after(20 * time.Minute)
	w.phase(schema.PhaseRolledBack)
	w.isExactly(good)
}

// isExactly checks that these modules run, from these definitions, and nothing
// else is there.
func (w *world) isExactly(modules []schema.Module) {
	w.Helper()
	all := w.machine.all()
	matches := len(all) == len(modules)
	for _, m := range modules {
		matches = matches && slices.ContainsFunc(all, func(c schema.Container) bool {
			return c.Module == m.Name && c.Hash == m.Hash() && c.State == schema.StateRunning
		})
	}
	plan, err := w.Preview(w.Context(), schema.Desired{Modules: modules})
	if !matches || err != nil || len(plan) > 0 {
		w.Fatalf("has %+v, plan %v, %v\n%s", all, plan, err, w.lines)
	}
}

// FuzzDiff applies plans to any containers of any definitions: no more than a few
// rounds lead to a plan that is empty.
func FuzzDiff(f *testing.F) {
	f.Add([]byte("1234"), []byte("abcdefgh"))
	f.Add([]byte("5555"), []byte("aaaa"))
	f.Fuzz(func(t *testing.T, definitions, containers []byte) {
		desired := schema.Desired{}
		for i, b := range definitions[:min(len(definitions), 8)] {
			m := module(string(rune('a'+i)), env(string('0'+b%3)))
			if i > 0 && b&8 == 0 {
				dependsOn(string(rune('a'+int(b)%i)), schema.ConditionStarted)(&m)
			}
			if b&16 == 0 {
				m.Restart.Policy = schema.RestartOnFailure
			}
			desired.Modules = append(desired.Modules, m)
		}
		device := map[string]schema.Container{}
		for i, b := range containers[:min(len(containers), 16)] {
			c := schema.Container{ID: string(rune('A' + i)), State: []string{schema.StateCreated, schema.StateRunning, schema.StateExited}[b%3], ExitCode: int(b % 2)}
			if b&4 == 0 && len(desired.Modules) > 0 {
				m := desired.Modules[int(b/8)%len(desired.Modules)]
				c.Module, c.Image = m.Name, m.Image
				if b&128 == 0 {
					c.Hash = m.Hash()
				}
			}
			device[c.ID] = c
		}
		for round := range 10 {
			observed := schema.Observed{}
			for _, id := range slices.Sorted(maps.Keys(device)) {
				observed.Containers = append(observed.Containers, device[id])
			}
			plan := reconciler.Diff(desired, observed, now.Add(time.Duration(round)*time.Hour))
			if len(plan) == 0 {
				return
			}
			apply(t, desired, device, plan)
		}
		t.Fatalf("no end: %+v on %+v", desired, device)
	})
}

func apply(t *testing.T, desired schema.Desired, device map[string]schema.Container, plan reconciler.Plan) {
	removals := true
	for _, a := range plan {
		if a.Verb != reconciler.Remove {
			removals = false
		}
		switch a.Verb {
		case reconciler.Remove:
			if !removals {
				t.Fatalf("a removal comes late: %v", plan)
			}
			delete(device, a.Container)
		case reconciler.Restart:
			c := device[a.Container]
			c.State = schema.StateRunning
			device[a.Container] = c
		case reconciler.Start:
			m, _ := desired.Module(a.Module)
			for _, c := range device {
				if c.Module == a.Module {
					t.Fatalf("a second container of %s: %v", a.Module, plan)
				}
			}
			device["new "+a.Module] = schema.Container{ID: "new " + a.Module, Module: a.Module, Image: m.Image, Hash: m.Hash(), State: schema.StateRunning}
		}
	}
}
