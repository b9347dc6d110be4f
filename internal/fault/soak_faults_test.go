//go:build soak

package fault_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// kind is one kind of fault.
type kind struct {
	name   string
	strike func(s *soak) // at a moment that chance chooses
	struck func(s *soak) // at a failpoint, while the agent waits there; nil: never there
	mend   func(s *soak) // a little later; nil: the device's own init system is enough
	after  func(s *soak) // when the device has settled and all is well; nil: nothing
}

var allFaults = []kind{
	{name: "power cut", strike: powerCut, struck: powerCut},
	{name: "kill agent", strike: kill(fault.AgentPart), struck: kill(fault.AgentPart)},
	{name: "kill containerd", strike: kill(fault.ContainerdPart), struck: kill(fault.ContainerdPart)},
	{name: "kill shim", strike: kill(fault.ShimPart), struck: kill(fault.ShimPart)},
	{name: "power cut", strike: powerCut, struck: powerCut}, // again: it is the fault that matters most
	{name: "kill all three", strike: killAll, struck: killAll},
	{name: "disk full", strike: fill, struck: fill, mend: func(s *soak) { s.d.Disk.Free() }},
	{name: "link cut", strike: cut, struck: cut, mend: func(s *soak) { s.d.Link.Restore() }},
	{name: "registry cuts", strike: cutEach, mend: restore},
	{name: "clock jump", strike: jump, struck: jump, after: func(s *soak) { s.d.Clock.Set(0) }},
	{name: "state file rot", strike: rot},
	{name: "power cut without a link", strike: func(s *soak) {
		cut(s) // what is sent from now on is on the device's disk only
		time.Sleep(time.Duration(s.rng.IntN(2000)) * time.Millisecond)
		powerCut(s)
	}},
	{name: "kill hub", strike: atHub(func(s *soak) { s.d.Hub.Kill() })},
	{name: "power cut of the hub", strike: atHub(func(s *soak) { s.d.Hub.PowerCut() })},
}

// atHub strikes where the hub has sent messages to its disk, or has just stored some;
// or after a while, where no message comes.
func atHub(strike func(s *soak)) func(*soak) {
	return func(s *soak) {
		if s.d.Hub == nil {
			return
		}
		struck := s.d.Hub.Controller.At("", s.rng.IntN(6), func() { strike(s) })
		select {
		case <-struck:
		case <-time.After(2 * time.Second):
			if s.d.Hub.Controller.Clear() {
				strike(s)
			} else {
				<-struck
			}
		}
	}
}

func powerCut(s *soak) { s.d.PowerCut() }

func kill(p fault.Part) func(*soak) { return func(s *soak) { s.d.Kill(p) } }

func killAll(s *soak) {
	for _, p := range []fault.Part{fault.ShimPart, fault.ContainerdPart, fault.AgentPart} {
		s.d.Kill(p)
	}
}

func fill(s *soak) { s.d.Disk.Fill(s.rng.IntN(3) * s.rng.IntN(64)) }

func cut(s *soak) {
	if s.d.Link != nil {
		s.d.Link.Cut()
	}
}

// cutEach lets connections to the registry and to Git live for some bytes only.
func cutEach(s *soak) {
	for _, p := range s.d.Link.Proxies {
		p.CutEach(int64(1+s.rng.IntN(512)) << 10)
	}
}

func restore(s *soak) {
	for _, p := range s.d.Link.Proxies {
		p.Restore()
	}
}

// jump sets the clock to 1970, or 56 years ahead.
func jump(s *soak) {
	if s.rng.IntN(2) == 0 {
		s.d.Clock.SetTo(time.Unix(int64(s.rng.IntN(86400)), 0))
	} else {
		s.d.Clock.Set(56 * 365 * 24 * time.Hour)
	}
}

// rot damages a few files of the agent while it does not run. Where the newest
// commit is to be refused, a device that lost everything has nothing to go back to,
// which is right and tells nothing: then the agent is only killed.
func rot(s *soak) {
	s.d.Kill(fault.AgentPart)
	if s.bad {
		return
	}
	files := slices.DeleteFunc(fault.Files(s.t, s.d.StateDir), func(path string) bool {
		// A volume or a log is the modules' own.
		// Without its identity it waits until a person enrols it again.
		return strings.Contains(path, "/volumes/") || strings.Contains(path, "/logs/") || filepath.Base(path) == "identity.nk"
	})
	for range 1 + s.rng.IntN(3) {
		if i := s.rng.IntN(len(files)); fileExists(files[i]) {
			// It may be noticed much later.
			s.d.Damaged = append(s.d.Damaged, files[i])
			fault.Rots[s.rng.IntN(len(fault.Rots))].Do(s.t, s.rng, files[i])
		}
	}
	if s.d.Account != nil {
		s.d.Account.Expected = []string{twin.LostDamaged, twin.LostWiped}
	}
}

func fileExists(path string) bool { _, err := os.Stat(path); return err == nil }

// change is what a round declares.
type change struct {
	name    string
	modules map[string]string // nil: nothing is declared
	refused string            // the phase in which it is to be refused; empty: it is good
	reason  string            // a part of the reason
}

// change chooses what is declared.
func (s *soak) change() change {
	next := maps.Clone(s.good)
	switch n := s.rng.IntN(100); {
	case n < 20, !*changes:
		return change{name: "none"}
	case n < 30:
		next["alpha"] = s.module(s.world.Unsigned, "")
		return change{"unsigned image", next, schema.PhaseVerifying, "no signature"}
	case n < 38:
		next["beta"] = s.module(s.image(), `, env: {CRASH: "3", AFTER: "100ms"}`)
		return change{"crashing module", next, schema.PhaseGating, "beta"}
	case n < 44:
		next["gamma"] = `image: 42`
		return change{"nonsense", next, schema.PhaseRendering, "device.cue"}
	default:
		return change{name: "good", modules: s.modules()}
	}
}

// modules are a good definition: some of them as they are, some new.
func (s *soak) modules() map[string]string {
	next := maps.Clone(s.good)
	if next == nil || s.rng.IntN(3) == 0 {
		next = map[string]string{
			"alpha": s.module(s.image(), ""),
			"beta":  s.module(s.image(), `, dependsOn: alpha: {}`),
			"gamma": s.module(s.image(), `, update: strategy: "start-then-stop"`),
		}
		if *messages {
			next["sender"] = s.d.Sender(5+s.rng.IntN(20), 1+s.rng.IntN(4), 0)
		}
	}
	next["alpha"] = s.module(s.image(), "")
	return next
}

func (s *soak) image() schema.Image { return s.world.Images[s.rng.IntN(len(s.world.Images))] }

// module is the body of a module; each is different from all before.
func (s *soak) module(image schema.Image, more string) string {
	s.serial++
	if !strings.Contains(more, "env:") {
		more += fmt.Sprintf(`, env: SERIAL: "%d"`, s.serial)
	}
	return fmt.Sprintf(`image: %q, restart: {min: "0s", max: "5s"}, stop: timeout: "2s"%s`, image, more)
}

func (s *soak) declare(c change) {
	if c.modules != nil {
		s.bad = c.refused != ""
		if c.refused == schema.PhaseGating {
			// It crashes long before, however busy the machine is.
			s.d.DeployOnTrial(c.modules, "15s")
			return
		}
		s.d.Deploy(c.modules)
	}
}

// judge compares the report with what was declared.
func (s *soak) judge(c change, report schema.Report, r *round) (violations []string) {
	refused := report.Refused != nil && report.Revision.Commit != s.d.Git.Head()
	switch {
	case c.modules == nil:
	case c.refused == "" && !refused:
		s.good = c.modules
	case c.refused == "" && report.Refused.Phase == schema.PhaseGating:
		r.RolledBack = true // the fault came in its trial: it is right to go back, and to say so
	case c.refused == "":
		violations = append(violations, fmt.Sprintf("a good revision is refused in phase %s: %s", report.Refused.Phase, report.Refused.Reason))
	case !refused:
		violations = append(violations, fmt.Sprintf("%s is not refused: phase %s", c.name, report.Phase))
	case report.Refused.Phase != c.refused || !strings.Contains(report.Refused.Reason+report.Refused.Module, c.reason):
		violations = append(violations, fmt.Sprintf("%s is refused in phase %s: %s; want %s, and a word of %q", c.name, report.Refused.Phase, report.Refused.Reason, c.refused, c.reason))
	}
	return violations
}
