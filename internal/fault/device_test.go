package fault_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// deadline is in which a device settles, on any machine.
const deadline = 60 * time.Second

// modules are three that depend on each other, of the world's images from first on.
func modules(w *fault.World, first int) map[string]string {
	body := func(n int, more string) string {
		image := w.Images[(first+n)%len(w.Images)]
		return fmt.Sprintf(`image: %q, env: FIRST: "%d", restart: {min: "0s", max: "5s"}, stop: timeout: "2s"%s`, image, first, more)
	}
	return map[string]string{"alpha": body(0, ""), "beta": body(1, `, dependsOn: alpha: {}`), "gamma": body(2, `, update: strategy: "start-then-stop"`)}
}

// settled waits until the device has settled and checks what is promised.
func settled(t *testing.T, d *fault.Device) schema.Report {
	t.Helper()
	report, err := d.Settle(deadline)
	if err != nil {
		t.Fatal(err)
	}
	d.Invariants(t)
	return report
}

// booted is a device that runs its first revision.
func booted(t *testing.T, options fault.Options) *fault.Device {
	t.Helper()
	d := fault.NewDevice(t, options)
	d.Boot()
	d.Deploy(modules(d.World, 0))
	settled(t, d)
	return d
}

// TestADeviceSurvives interrupts deployments at the places where it hurts most, on
// every line of containerd and every filesystem; each of the four takes others.
func TestADeviceSurvives(t *testing.T) {
	t.Parallel()
	powerCut := func(d *fault.Device) { d.PowerCut() }
	kill := func(p fault.Part) func(*fault.Device) { return func(d *fault.Device) { d.Kill(p) } }
	type blow struct {
		name   string
		at     string
		strike func(*fault.Device)
	}
	blows := []blow{
		{"power cut with an image unpacked and not synced", "containerd.unsynced", powerCut},
		{"power cut between marking an image and letting its lease go", "containerd.marked", powerCut},
		{"power cut while garbage is collected", "containerd.collect", powerCut},
		{"power cut between writing the state and acting on it", "reconciler.saved", powerCut},
		{"power cut before a file is renamed into its place", "durable.written", powerCut},
		{"agent killed with a container that has no snapshot", "containerd.recorded", kill(fault.AgentPart)},
		{"agent killed with a process made and not started", "containerd.attached", kill(fault.AgentPart)},
		{"agent killed between the end of a process and its removal", "containerd.killed", kill(fault.AgentPart)},
		{"agent killed before a revision becomes last-good", "reconciler.keep", kill(fault.AgentPart)},
		{"containerd killed while it pulls", "containerd.leased", kill(fault.ContainerdPart)},
		{"agent killed while garbage is collected", "containerd.collect", kill(fault.AgentPart)},
		{"agent killed before last-good is kept", "reconciler.kept", kill(fault.AgentPart)},
		{"containerd killed between images that are pruned", "containerd.pruning", kill(fault.ContainerdPart)},
		{"containerd killed with a process made and not started", "containerd.attached", kill(fault.ContainerdPart)},
		{"shim killed before its container is removed", "containerd.taskless", kill(fault.ShimPart)},
		{"shim killed with a process made and not started", "containerd.attached", kill(fault.ShimPart)},
	}
	world := fault.NewWorld(t)
	n := 0
	for _, line := range harness.ContainerdVersions {
		for _, fs := range fault.Filesystems {
			first := n
			t.Run("containerd-"+line+"/"+fs, func(t *testing.T) {
				t.Parallel()
				d := booted(t, fault.Options{World: world, Containerd: line, FS: fs})
				for i := first; i < len(blows); i += 4 {
					b := blows[i]
					struck := d.Controller.At(b.at, 0, func() { b.strike(d) })
					d.Deploy(modules(world, i+1))
					select {
					case <-struck:
					case <-time.After(deadline):
						t.Fatalf("%s: %s was never reached", b.name, b.at)
					}
					d.Revive()
					if t.Logf("%s", b.name); settled(t, d).Revision.Commit != d.Git.Head() {
						t.Logf("it went back, since the revision was on trial")
					}
				}
			})
			n++
		}
	}
}

// TestALinkIsCutWhileImagesCome has each connection end after some bytes, and then
// all of it stop.
func TestALinkIsCutWhileImagesCome(t *testing.T) {
	t.Parallel()
	d := booted(t, fault.Options{})
	for _, p := range d.Link.Proxies {
		p.CutEach(3 << 20) // of 8 MB
	}
	d.Deploy(modules(d.World, 5))
	time.Sleep(300 * time.Millisecond)
	d.Link.Cut()
	time.Sleep(300 * time.Millisecond)
	d.Link.Restore()
	if r := settled(t, d); r.Phase != schema.PhaseHealthy {
		t.Errorf("phase %s", r.Phase)
	}
}

// TestADiskIsFullWhileADeviceUpdates fills the disk to the last block: what runs
// goes on, and the update is made once there is room.
func TestADiskIsFullWhileADeviceUpdates(t *testing.T) {
	t.Parallel()
	for _, fs := range fault.Filesystems {
		t.Run(fs, func(t *testing.T) {
			t.Parallel()
			d := booted(t, fault.Options{FS: fs})
			before := d.Git.Head()
			d.Disk.Fill(0)
			d.Deploy(modules(d.World, 3))
			for range 20 {
				time.Sleep(50 * time.Millisecond)
				r, err := d.Status()
				if err != nil || r.Revision.Commit != before {
					t.Fatalf("on a full disk: revision %s, %v", r.Revision.Short(), err)
				}
				for name, m := range r.Modules {
					if m.RuntimeStatus != schema.RuntimeRunning {
						t.Fatalf("on a full disk %s is %s: %s", name, m.RuntimeStatus, m.StatusDescription)
					}
				}
			}
			d.Disk.Fill(1)
			d.Kill(fault.AgentPart)
			d.Revive()
			time.Sleep(500 * time.Millisecond)
			d.Disk.Free()
			if r := settled(t, d); r.Phase != schema.PhaseHealthy || r.Revision.Commit != d.Git.Head() {
				t.Errorf("with room again: phase %s at %s", r.Phase, r.Revision.Short())
			}
		})
	}
}

// TestTheClockIsWrongByDecades boots in 1970, jumps 56 years ahead while it runs,
// and back, with an update at each.
func TestTheClockIsWrongByDecades(t *testing.T) {
	t.Parallel()
	d := fault.NewDevice(t, fault.Options{Clock: true})
	d.Clock.SetTo(time.Unix(3600, 0))
	d.Boot()
	for i, jump := range []func(){
		func() {},
		func() { d.Clock.Set(0) },
		func() { d.Clock.SetTo(time.Unix(60, 0)) },
	} {
		jump()
		d.Deploy(modules(d.World, i))
		if r := settled(t, d); r.Phase != schema.PhaseHealthy {
			t.Errorf("after jump %d: phase %s, %+v", i, r.Phase, r.Refused)
		}
	}
	year := 0
	if r, err := d.Status(); err == nil {
		year = r.Modules["alpha"].StartedAt.Year()
	}
	if year > 1971 {
		t.Errorf("the last update was made in %d by the agent's clock: no clock was set", year)
	}
}

// TestStateFilesRot damages each state file in turn, in each way.
func TestStateFilesRot(t *testing.T) {
	t.Parallel()
	d := booted(t, fault.Options{})
	rng := rand.New(rand.NewPCG(1, 1))
	for i, rot := range fault.Rots {
		d.Kill(fault.AgentPart)
		for _, path := range fault.Files(t, d.StateDir) {
			if name := filepath.Base(path); strings.HasSuffix(name, ".json") || name == "journal" {
				d.Damaged = append(d.Damaged, path)
				rot.Do(t, rng, path)
			}
		}
		d.Revive()
		d.Deploy(modules(d.World, i+1))
		if r := settled(t, d); r.Phase != schema.PhaseHealthy {
			t.Errorf("%s: phase %s, %+v", rot, r.Phase, r.Refused)
		}
	}
}

// TestContainerdsDatabaseIsTruncated (containerd#4838, #9929): the device comes back
// by itself, with what it ran.
func TestContainerdsDatabaseIsTruncated(t *testing.T) {
	t.Parallel() // most of it is waiting until it is sure that containerd does not come up
	for _, line := range harness.ContainerdVersions {
		t.Run("containerd-"+line, func(t *testing.T) {
			t.Parallel()
			d := booted(t, fault.Options{Containerd: line, OwnContainerd: true})
			before := d.Git.Head()
			d.PowerOff()
			database := filepath.Join(d.Root, "io.containerd.metadata.v1.bolt", "meta.db")
			info, err := os.Stat(database)
			if err == nil {
				err = os.Truncate(database, info.Size()/2)
			}
			if err != nil {
				t.Fatal(err)
			}
			d.Boot()
			stop := d.KeepAlive()
			defer stop()
			if _, err := d.Settle(3 * deadline); err != nil {
				t.Fatal(err)
			}
			if r := settled(t, d); r.Phase != schema.PhaseHealthy || r.Revision.Commit != before {
				t.Errorf("phase %s at %s", r.Phase, r.Revision.Short())
			}
		})
	}
}

// TestRefusalsAreReported declares what must not run.
func TestRefusalsAreReported(t *testing.T) {
	t.Parallel()
	d := booted(t, fault.Options{})
	good := d.Git.Head()
	for name, c := range map[string]struct{ module, phase, reason string }{
		"nobody signed it":   {fmt.Sprintf(`image: %q`, d.World.Unsigned), schema.PhaseVerifying, "no signature"},
		"it does not work":   {fmt.Sprintf(`image: %q, env: CRASH: "3"`, d.World.Images[1]), schema.PhaseGating, ""},
		"it does not render": {`image: 42`, schema.PhaseRendering, "device.cue:"},
	} {
		next := modules(d.World, 0)
		next["alpha"] = c.module
		d.Deploy(next)
		r := settled(t, d)
		if r.Revision.Commit != good || r.Refused == nil || r.Refused.Phase != c.phase || !strings.Contains(r.Refused.Reason, c.reason) {
			t.Errorf("%s: %s runs, refused %+v", name, r.Revision.Short(), r.Refused)
		}
	}
}
