// Package contract is what every adapter of a reconciler's port must do, as
// tests. They run over the fake that the reconciler is tested with, and over the
// real thing.
package contract

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// Fixture is what the suite works with.
type Fixture struct {
	Runtime  reconciler.Runtime  // with nothing under its namespace
	Store    Store               // of the images that Runtime runs
	Verifier reconciler.Verifier // accepts the images of Stays and Fails
	Stays    schema.Module       // runs until it is ended
	Fails    schema.Module       // exits with code 3 by itself; of another name and another image
	Pause    func(id string)     // freezes the processes of a container
}

// Store is the part of a reconciler.Store that this suite is about.
type Store interface {
	Pull(ctx context.Context, image signing.Verified) error
	Prune(ctx context.Context, keep []schema.Image) error
}

// commit is the revision that the suite's containers are made by.
const commit = "0123456789abcdef0123456789abcdef01234567"

// patience is how long an effect may take to show. Nothing takes that long.
const patience = time.Minute

// Runtime tests a reconciler.Runtime. open is called once for each test.
func Runtime(t *testing.T, open func(t *testing.T) Fixture) {
	tests := map[string]func(*suite){
		"start refuses what is not proven":      (*suite).refusesUnproven,
		"start runs the definition":             (*suite).starts,
		"start again changes nothing":           (*suite).startsOnce,
		"an exit is observed with its code":     (*suite).exits,
		"restart runs it again and counts it":   (*suite).restarts,
		"restart leaves alone what runs":        (*suite).restartsNothing,
		"restart needs no image":                (*suite).restartsPruned,
		"start makes anew what has ended":       (*suite).replacesExited,
		"stop keeps the container and says why": (*suite).stops,
		"stop again changes nothing":            (*suite).stopsOnce,
		"stop leaves alone what has ended":      (*suite).stopsNothing,
		"what was stopped runs again":           (*suite).restartsStopped,
		"what was paused goes on":               (*suite).resumes,
		"what is paused can be stopped":         (*suite).stopsPaused,
		"remove ends and deletes, twice too":    (*suite).removes,
		"two definitions are two containers":    (*suite).tellsDefinitionsApart,
		"prune spares what is kept":             (*suite).prunes,
		"a cancelled context ends every method": (*suite).obeysContext,
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) {
			s := &suite{T: t, Fixture: open(t), ctx: t.Context()}
			tests[name](s)
		})
	}
}

type suite struct {
	*testing.T
	Fixture
	ctx context.Context
}

func (s *suite) refusesUnproven() {
	other := s.pulled(s.Fails)
	if err := s.Runtime.Start(s.ctx, s.Stays, commit, signing.Verified{}); err == nil {
		s.Error("started with no proof")
	}
	if err := s.Runtime.Start(s.ctx, s.Stays, commit, other); err == nil {
		s.Error("started with the proof of another image")
	}
	if all := s.observe(); len(all) > 0 {
		s.Errorf("left %+v", all)
	}
}

func (s *suite) starts() {
	s.start(s.Stays)
	c := s.only()
	want := schema.Container{
		ID: c.ID, Module: s.Stays.Name, Image: s.Stays.Image, Hash: s.Stays.Hash(), Commit: commit,
		State: schema.StateRunning, PID: c.PID, StartedAt: c.StartedAt,
	}
	if c != want || c.ID == "" || c.PID <= 0 || c.StartedAt.IsZero() {
		s.Errorf("observed %+v, want %+v", c, want)
	}
}

func (s *suite) startsOnce() {
	s.start(s.Stays)
	before := s.only()
	s.start(s.Stays)
	if after := s.only(); after.ID != before.ID || after.PID != before.PID {
		s.Errorf("was %+v, is %+v", before, after)
	}
}

func (s *suite) exits() {
	s.start(s.Fails)
	c := s.awaitExit()
	if c.ExitCode != 3 || c.PID != 0 || c.ExitedAt.IsZero() || c.OOMKilled || c.Restarts != 0 {
		s.Errorf("observed %+v, want an exit with code 3", c)
	}
}

func (s *suite) restarts() {
	s.start(s.Fails)
	first := s.awaitExit()
	s.must("restart", s.Runtime.Restart(s.ctx, first.ID, 7))
	again := s.only()
	if again.ID != first.ID || again.Restarts != 7 || again.Hash != first.Hash || again.Commit != first.Commit {
		s.Errorf("was %+v, is %+v, want it restarted for the 7th time", first, again)
	}
	if c := s.awaitExit(); c.ExitCode != 3 {
		s.Errorf("observed %+v, want another exit with code 3", c)
	}
	if err := s.Runtime.Restart(s.ctx, "nobody", 1); err == nil {
		s.Error("restarted a container that does not exist")
	}
}

func (s *suite) restartsNothing() {
	s.start(s.Stays)
	before := s.only()
	s.must("restart", s.Runtime.Restart(s.ctx, before.ID, 1))
	if after := s.only(); after.PID != before.PID || after.State != schema.StateRunning {
		s.Errorf("was %+v, is %+v", before, after)
	}
}

func (s *suite) stops() {
	s.start(s.Stays)
	before := s.only()
	s.must("stop", s.Runtime.Stop(s.ctx, before.ID, "liveness: status 503"))
	c := s.only()
	want := before
	want.State, want.PID, want.Ended = schema.StateExited, 0, "liveness: status 503"
	want.StartedAt, want.ExitedAt, want.ExitCode = c.StartedAt, c.ExitedAt, c.ExitCode
	if c != want || c.ExitedAt.IsZero() {
		s.Errorf("was %+v, is %+v, want %+v", before, c, want)
	}
}

func (s *suite) stopsOnce() {
	s.start(s.Stays)
	id := s.only().ID
	s.must("stop", s.Runtime.Stop(s.ctx, id, "the first reason"))
	before := s.only()
	s.must("stop again", s.Runtime.Stop(s.ctx, id, "another reason"))
	if after := s.only(); after != before {
		s.Errorf("was %+v, is %+v", before, after)
	}
	s.must("stop what is not there", s.Runtime.Stop(s.ctx, "nobody", "none"))
}

func (s *suite) stopsNothing() {
	s.start(s.Fails)
	before := s.awaitExit()
	s.must("stop", s.Runtime.Stop(s.ctx, before.ID, "too late"))
	if after := s.only(); after != before {
		s.Errorf("was %+v, is %+v", before, after)
	}
}

func (s *suite) restartsStopped() {
	s.start(s.Stays)
	before := s.only()
	s.must("stop", s.Runtime.Stop(s.ctx, before.ID, "for a while"))
	s.must("restart", s.Runtime.Restart(s.ctx, before.ID, 2))
	if c := s.only(); c.ID != before.ID || c.State != schema.StateRunning || c.Ended != "" || c.Restarts != 2 || c.PID == before.PID {
		s.Errorf("was %+v, is %+v, want it to run again", before, c)
	}
}

func (s *suite) resumes() {
	s.start(s.Stays)
	before := s.only()
	s.Pause(before.ID)
	if c := s.only(); c.State != schema.StatePaused || c.PID != before.PID {
		s.Errorf("observed %+v, want it paused", c)
	}
	s.must("restart", s.Runtime.Restart(s.ctx, before.ID, 1))
	if after := s.only(); after != before {
		s.Errorf("was %+v, is %+v", before, after)
	}
}

func (s *suite) stopsPaused() {
	s.start(s.Stays)
	id := s.only().ID
	s.Pause(id)
	s.must("stop", s.Runtime.Stop(s.ctx, id, "frozen"))
	if c := s.only(); c.State != schema.StateExited || c.Ended != "frozen" {
		s.Errorf("observed %+v, want its exit", c)
	}
}

func (s *suite) removes() {
	s.start(s.Stays)
	c := s.only()
	s.must("remove", s.Runtime.Remove(s.ctx, c.ID))
	if all := s.observe(); len(all) > 0 {
		s.Errorf("left %+v", all)
	}
	s.must("remove what is gone", s.Runtime.Remove(s.ctx, c.ID))
	s.start(s.Stays)
	s.only()
}

func (s *suite) tellsDefinitionsApart() {
	other := s.Stays
	other.Env = maps.Clone(other.Env)
	if other.Env == nil {
		other.Env = map[string]string{}
	}
	other.Env["CONTRACT"] = "other"
	s.start(s.Stays)
	s.start(other)
	all := s.observe()
	if len(all) != 2 || all[0].ID == all[1].ID || all[0].Hash == all[1].Hash {
		s.Errorf("observed %+v, want two containers", all)
	}
}

func (s *suite) prunes() {
	s.pulled(s.Fails)
	s.start(s.Stays)
	before := s.only()
	s.must("prune", s.Store.Prune(s.ctx, []schema.Image{s.Stays.Image}))
	if after := s.only(); after.PID != before.PID {
		s.Errorf("was %+v, is %+v", before, after)
	}
	s.must("remove", s.Runtime.Remove(s.ctx, before.ID))
	s.must("start from what was kept", s.Runtime.Start(s.ctx, s.Stays, commit, s.proof(s.Stays)))
	if err := s.Runtime.Start(s.ctx, s.Fails, commit, s.proof(s.Fails)); err == nil {
		s.Error("started from an image that was pruned")
	}
	s.start(s.Fails)
}

func (s *suite) obeysContext() {
	proof := s.proof(s.Stays)
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := s.Runtime.Observe(ctx); err == nil {
		s.Error("observed")
	}
	if err := s.Store.Pull(ctx, proof); err == nil {
		s.Error("pulled")
	}
	if err := s.Runtime.Start(ctx, s.Stays, commit, proof); err == nil {
		s.Error("started")
	}
	if all := s.observe(); len(all) > 0 {
		s.Errorf("left %+v", all)
	}
	s.start(s.Fails)
	ended := s.awaitExit()
	if err := s.Runtime.Restart(ctx, ended.ID, 1); err == nil {
		s.Error("restarted")
	}
	if err := s.Runtime.Stop(ctx, ended.ID, "none"); err == nil {
		s.Error("stopped")
	}
	if err := s.Runtime.Remove(ctx, ended.ID); err == nil {
		s.Error("removed")
	}
	if err := s.Store.Prune(ctx, nil); err == nil {
		s.Error("pruned")
	}
	if c := s.only(); c != ended {
		s.Errorf("was %+v, is %+v", ended, c)
	}
}

// restartsPruned: a container does not need its image to run again.
func (s *suite) restartsPruned() {
	s.start(s.Fails)
	first := s.awaitExit()
	s.must("prune", s.Store.Prune(s.ctx, nil))
	s.must("restart", s.Runtime.Restart(s.ctx, first.ID, 1))
	if c := s.awaitExit(); c.ID != first.ID || c.ExitCode != 3 || c.Restarts != 1 {
		s.Errorf("was %+v, is %+v", first, c)
	}
}

// replacesExited: what a new Start finds of an ended container is not counted
// on.
func (s *suite) replacesExited() {
	s.start(s.Fails)
	first := s.awaitExit()
	s.must("restart", s.Runtime.Restart(s.ctx, first.ID, 5))
	s.awaitExit()
	s.start(s.Fails)
	if c := s.awaitExit(); c.ID != first.ID || c.Restarts != 0 || c.ExitCode != 3 || !c.StartedAt.After(first.StartedAt) {
		s.Errorf("was %+v, is %+v, want it made anew", first, c)
	}
}

func (s *suite) must(what string, err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}

func (s *suite) proof(m schema.Module) signing.Verified {
	s.Helper()
	proof, err := s.Verifier.Verify(s.ctx, m.Image)
	s.must("verify", err)
	return proof
}

// pulled pulls the module's image, twice.
func (s *suite) pulled(m schema.Module) signing.Verified {
	s.Helper()
	proof := s.proof(m)
	s.must("pull", s.Store.Pull(s.ctx, proof))
	s.must("pull again", s.Store.Pull(s.ctx, proof))
	return proof
}

func (s *suite) start(m schema.Module) {
	s.Helper()
	s.must("start", s.Runtime.Start(s.ctx, m, commit, s.pulled(m)))
}

func (s *suite) observe() []schema.Container {
	s.Helper()
	observed, err := s.Runtime.Observe(s.ctx)
	s.must("observe", err)
	return observed.Containers
}

// only is the one container there is.
func (s *suite) only() schema.Container {
	s.Helper()
	all := s.observe()
	if len(all) != 1 {
		s.Fatalf("observed %+v, want one container", all)
	}
	return all[0]
}

func (s *suite) awaitExit() schema.Container {
	s.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c := s.only()
		if c.State == schema.StateExited {
			return c
		}
		if time.Now().After(deadline) {
			s.Fatalf("still %+v after %v", c, patience)
		}
	}
}
