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
		"u00p1111t9p2222t9p3333t9U", "p1111t9P0P1t1x0x1t1", "p6666t9u20p7777t9u21t9", "o1p1111o0t9o1k", "p1111d0t1d1a0t1a9", "l03p1111t9p2222t9L", "i1p1111t9i1m0t1", "p1818p8181a0a1a2t9",
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
			good := []schema.Module{
				module("a", asks("liveness")), module("b", from("other"), dependsOn("a", schema.ConditionStarted)),
				module("d", env("9"), startThenStop, asks("readiness")),
			}
			w.converges(good)
			w.rollsBack(good)
			w.stop()
		})
	})
}

// anyScript is a script in which about half of the bytes are commands.
func anyScript(r *rand.Rand) []byte {
	const letters = "pppclLfkrmadosSibuUPxttt"
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
			method := []string{"observe", "pull", "start", "restart", "remove", "prune", "stop"}[next()%7]
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
		case 'u':
			probe := pick() + " " + []string{"startup", "liveness", "readiness"}[next()%3]
			w.answer(probe, []error{errUnavailable, schema.ErrNotAsked}[next()%2])
		case 'U':
			m.set(func() { clear(m.sick) })
		case 'P':
			m.each(pick(), func(c *schema.Container) {
				if c.State == schema.StateRunning {
					c.State = schema.StatePaused
				}
			})
			w.Kick()
		case 'x':
			m.each(pick(), func(c *schema.Container) { c.Drift = "changed by hand" })
			w.Kick()
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
		m.Restart.Policy = []string{schema.RestartAlways, schema.RestartOnFailure, schema.RestartNever, schema.RestartOnUnhealthy}[b/4%4]
		for bit, probe := range []string{"startup", "liveness", "readiness"} {
			if b>>bit&9 == 9 {
				asks(probe)(&m)
			}
		}
		if b&64 != 0 {
			startThenStop(&m)
		}
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
	w.machine.set(func() { clear(w.machine.lives); clear(w.machine.faults); clear(w.machine.slow); clear(w.machine.sick) })
}

// each changes every container of a module.
func (m *machine) each(module string, change func(*schema.Container)) {
	m.set(func() {
		for _, c := range m.containers {
			if c.Module == module {
				change(c)
			}
		}
	})
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
// rounds lead to a plan that is empty. Meanwhile no module runs twice but where
// it may, and one that may never has its last container removed before the next
// one is healthy.
func FuzzDiff(f *testing.F) {
	f.Add([]byte("1234"), []byte("abcdefgh"))
	f.Add([]byte("5555"), []byte("aaaa"))
	f.Add([]byte("@AB@ab"), []byte("\x00\x05\x0a\x0f\x84\x8a\x90\xa5\xb1"))
	f.Fuzz(func(t *testing.T, definitions, containers []byte) {
		desired := schema.Desired{}
		for i, b := range definitions[:min(len(definitions), 8)] {
			m := module(string(rune('a'+i)), env(string('0'+b%3)))
			if i > 0 && b&8 == 0 && desired.Modules[int(b)%i].Status == schema.StatusRunning {
				dependsOn(string(rune('a'+int(b)%i)), []string{schema.ConditionStarted, schema.ConditionHealthy}[b/4%2])(&m)
			}
			if b&16 == 0 {
				m.Restart.Policy = schema.RestartOnFailure
			}
			if b&32 == 0 {
				asks("liveness")(&m)
			}
			if b&64 == 0 {
				startThenStop(&m)
			}
			if b == 255 {
				m.Status = schema.StatusStopped
			}
			desired.Modules = append(desired.Modules, m)
		}
		device := device{}
		for i, b := range containers[:min(len(containers), 16)] {
			c := schema.Container{ID: string(rune('A' + i)), State: states[b%4], ExitCode: int(b % 2), Health: healths[b/4%4], StartedAt: now.Add(-time.Duration(b) * time.Minute)}
			if b&4 == 0 && len(desired.Modules) > 0 {
				m := desired.Modules[int(b/8)%len(desired.Modules)]
				c.Module, c.Image = m.Name, m.Image
				if b&128 == 0 {
					c.Hash = m.Hash()
				}
				if b%7 == 0 {
					c.Drift = "changed by hand"
				}
			}
			device[c.ID] = c
		}
		for round := range 40 {
			plan := reconciler.Diff(desired, device.observed(), now.Add(time.Duration(round)*time.Hour))
			if len(plan) == 0 {
				return
			}
			device.apply(t, desired, plan)
		}
		t.Fatalf("no end: %+v on %+v", desired, device)
	})
}

var (
	states  = []string{schema.StateCreated, schema.StateRunning, schema.StateExited, schema.StatePaused}
	healths = []string{"", schema.HealthHealthy, schema.HealthUnhealthy, schema.HealthStarting}
)

// device is what is there, by container.
type device map[string]schema.Container

func (d device) observed() schema.Observed {
	observed := schema.Observed{}
	for _, id := range slices.Sorted(maps.Keys(d)) {
		observed.Containers = append(observed.Containers, d[id])
	}
	return observed
}

// of are the containers of a module that run.
func (d device) of(module string) (running []schema.Container) {
	for _, c := range d.observed().Containers {
		if c.Module == module && c.State == schema.StateRunning {
			running = append(running, c)
		}
	}
	return running
}

// apply does what the plan says, and lets what runs become healthy.
func (d device) apply(t *testing.T, desired schema.Desired, plan reconciler.Plan) {
	removals, before, drifted := true, map[string]int{}, map[string]bool{}
	for _, m := range desired.Modules {
		before[m.Name] = len(d.of(m.Name))
	}
	for _, a := range plan {
		removals = removals && a.Verb == reconciler.Remove
		c := d[a.Container]
		m, _ := desired.Module(a.Module)
		switch a.Verb {
		case reconciler.Remove:
			if !removals {
				t.Fatalf("a removal comes late: %v", plan)
			}
			drifted[a.Module] = drifted[a.Module] || c.Drift != ""
			delete(d, a.Container)
		case reconciler.Restart:
			c.State, c.Health = schema.StateRunning, schema.HealthStarting
			d[c.ID] = c
		case reconciler.Stop:
			if c.State != schema.StateRunning || c.Health != schema.HealthUnhealthy {
				t.Fatalf("stops what is not unhealthy: %v", plan)
			}
			c.State, c.Ended, c.ExitedAt = schema.StateExited, a.Reason, now
			d[c.ID] = c
		case reconciler.Start:
			others := len(d.of(a.Module))
			if others > 1 || others > 0 && m.Update.Strategy != schema.UpdateStartThenStop {
				t.Fatalf("%d containers of %s run already: %v", others, a.Module, plan)
			}
			id := "new " + a.Module
			d[id] = schema.Container{ID: id, Module: a.Module, Image: m.Image, Hash: m.Hash(), State: schema.StateRunning, Health: schema.HealthStarting}
		}
	}
	for _, m := range desired.Modules {
		stopped := slices.ContainsFunc(plan, func(a reconciler.Action) bool { return a.Verb == reconciler.Stop && a.Module == m.Name })
		done := slices.ContainsFunc(d.observed().Containers, func(c schema.Container) bool {
			return c.Module == m.Name && c.Hash == m.Hash() && c.State == schema.StateExited && c.ExitCode == 0
		})
		mayEnd := stopped || done || drifted[m.Name] || m.Status == schema.StatusStopped || m.Update.Strategy != schema.UpdateStartThenStop
		if !mayEnd && before[m.Name] > 0 && len(d.of(m.Name)) == 0 {
			t.Fatalf("nothing runs as %s any more: %v", m.Name, plan)
		}
	}
	for id, c := range d {
		if c.State == schema.StateRunning && (c.Health == "" || c.Health == schema.HealthStarting) {
			c.Health = schema.HealthHealthy
		}
		if c.Health == schema.HealthUnhealthy && len(plan) > 0 && plan[0].Verb == reconciler.Wait {
			c.Health = schema.HealthHealthy // what is left alone may recover
		}
		d[id] = c
	}
}
