package fault_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/schema"
)

// eachDevice runs a test on a device of each line of containerd, each on another
// filesystem.
func eachDevice(t *testing.T, test func(t *testing.T, options fault.Options)) {
	world := fault.NewWorld(t)
	for line, fs := range map[string]string{"1.6": "xfs", "2": "ext4"} {
		t.Run("containerd-"+line+"/"+fs, func(t *testing.T) {
			t.Parallel()
			test(t, fault.Options{World: world, Containerd: line, FS: fs})
		})
	}
}

// chain are modules of which each needs the one before.
func chain(w *fault.World) map[string]string {
	body := func(n int, more string) string {
		return fmt.Sprintf(`image: %q, restart: {min: "0s", max: "5s"}, stop: timeout: "2s"%s`, w.Images[n], more)
	}
	return map[string]string{
		"alpha": body(0, ""),
		"beta":  body(1, `, dependsOn: alpha: condition: "healthy"`),
		"gamma": body(2, `, dependsOn: beta: {}`),
	}
}

// bootOffline turns a device on that has no way to anywhere, and checks that.
func bootOffline(t *testing.T, d *fault.Device) {
	t.Helper()
	d.Offline = true
	d.Boot()
	if up, err := d.Machine.Interfaces(); err != nil || len(up) > 0 {
		t.Fatalf("interfaces that are up: %v, %v", up, err)
	}
}

// report waits for a report of the agent that is as it should be.
func report(t *testing.T, d *fault.Device, should string, is func(schema.Report) bool) schema.Report {
	t.Helper()
	for end := time.Now().Add(deadline); ; time.Sleep(50 * time.Millisecond) {
		r, err := d.Status()
		if err == nil && is(r) {
			return r
		}
		if time.Now().After(end) {
			t.Fatalf("the report is not %s: %+v, %v", should, r, err)
		}
	}
}

// asReported waits until the device's twin says what the agent says.
func asReported(t *testing.T, d *fault.Device) {
	t.Helper()
	var twin schema.Report
	report(t, d, "in the twin", func(r schema.Report) bool {
		var err error
		twin, err = d.Reported()
		return err == nil && reflect.DeepEqual(twin, r)
	})
}

// Azure/iotedge#7406: modules do not come up after an offline reboot.
func TestIotedge7406AllModulesRunWithNoInterfaceUpAfterAPowerCut(t *testing.T) {
	t.Parallel()
	eachDevice(t, func(t *testing.T, options fault.Options) {
		d := fault.NewDevice(t, options)
		d.Boot()
		head := d.Deploy(chain(d.World))
		before := settled(t, d)
		pulls := d.Controller.Reached()["containerd.leased"]
		kept := marks(d)
		mark(t, kept)
		d.PowerCut()
		d.PowerOff()
		bootOffline(t, d)
		for _, path := range marks(d) {
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("%s survived the reboot: %v", path, err)
			}
		}
		settled(t, d)
		r := report(t, d, "that the source cannot be reached", func(r schema.Report) bool {
			return r.LastDesiredStatus.Code == schema.CodeOffline
		})
		if r.Phase != schema.PhaseHealthy || r.Revision.Commit != head || r.LastGood.Commit != head || r.Refused != nil {
			t.Errorf("phase %s at %s, last-good %s, refused %+v", r.Phase, r.Revision.Short(), r.LastGood.Short(), r.Refused)
		}
		for name, was := range before.Modules {
			is := r.Modules[name]
			if is.Evidence == nil || !reflect.DeepEqual(is.Evidence, was.Evidence) {
				t.Errorf("%s runs for the evidence %+v, and did for %+v", name, is.Evidence, was.Evidence)
			}
		}
		inOrder(t, r, "alpha", "beta", "gamma")
		if n := d.Controller.Reached()["containerd.leased"] - pulls; n != 0 {
			t.Errorf("%d images were pulled", n)
		}
		asReported(t, d)
	})
}

// marks are files in what a reboot clears: the machine's /run, and the device's.
func marks(d *fault.Device) []string {
	return []string{
		fmt.Sprintf("/proc/%d/root/run/mark", d.Machine.PID),
		filepath.Join(d.RunDir, "mark"),
	}
}

func mark(t *testing.T, paths []string) {
	t.Helper()
	for _, path := range paths {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// inOrder checks that modules started one after the other.
func inOrder(t *testing.T, r schema.Report, names ...string) {
	t.Helper()
	for i, name := range names[1:] {
		first, then := r.Modules[names[i]].StartedAt, r.Modules[name].StartedAt
		if first.IsZero() || then.Before(first) {
			t.Errorf("%s started at %v, and %s, which it needs, at %v", name, then, names[i], first)
		}
	}
}

// kubeedge#3941: workloads are rebuilt when the link returns.
func TestKubeedge3941NothingIsRebuiltNorAskedForWhenTheLinkReturns(t *testing.T) {
	t.Parallel()
	eachDevice(t, func(t *testing.T, options fault.Options) {
		d := fault.NewDevice(t, options)
		d.Boot()
		modules := chain(d.World)
		// Passes its gate, and then waits for an hour.
		modules["delta"] = fmt.Sprintf(`image: %q, env: {CRASH: "3", AFTER: "2s"}, restart: {min: "1h", max: "1h"}, dependsOn: beta: {}`, d.World.Images[3])
		head := d.Deploy(modules)
		settled(t, d)
		d.PowerOff()
		bootOffline(t, d)
		settled(t, d)
		before := report(t, d, "that delta is in back-off", func(r schema.Report) bool {
			return r.Modules["delta"].RuntimeStatus == schema.RuntimeBackoff
		})
		inOrder(t, before, "alpha", "beta", "gamma")
		lives := running(t, d, 4, 3)
		for range 2 {
			d.Link.Restore()
			for fetches := d.Link.Git().Taken.Load() + 3; d.Link.Git().Taken.Load() < fetches; {
				d.Kick()
				time.Sleep(50 * time.Millisecond)
			}
			settled(t, d)
			if n := d.Link.Registry().Taken.Load(); n != 0 {
				t.Errorf("the registry was asked for something over %d connections", n)
			}
			if now := running(t, d, 4, 3); !maps.Equal(now, lives) {
				t.Errorf("with the link there run %v; before there ran %v", now, lives)
			}
			r, err := d.Status()
			if err != nil || r.Revision.Commit != head || r.Phase != before.Phase || !reflect.DeepEqual(r.Modules, before.Modules) {
				t.Errorf("reported %+v, %v; before %+v", r, err, before)
			}
			asReported(t, d)
			d.Link.Cut()
		}
		d.Link.Restore()
		// All of this would be seen: a new image is asked for, its module replaced.
		modules["gamma"] = fmt.Sprintf(`image: %q, dependsOn: beta: {}`, d.World.Images[4])
		d.Deploy(modules)
		if r := settled(t, d); r.Phase != schema.PhaseHealthy {
			t.Errorf("with a new image: phase %s, %+v", r.Phase, r.Refused)
		}
		if d.Link.Registry().Taken.Load() == 0 {
			t.Error("a new image has come over no connection: none is counted")
		}
		now, err := d.Lives()
		if err != nil {
			t.Fatal(err)
		}
		if now["gamma"] == lives["gamma"] {
			t.Errorf("gamma has another image, and is still %+v", now["gamma"])
		}
		for _, name := range []string{"alpha", "beta"} {
			if now[name] != lives[name] {
				t.Errorf("another module has a new image, and %s is %+v; before it was %+v", name, now[name], lives[name])
			}
		}
		if now["delta"].Container != lives["delta"].Container { // started once more, for the trial
			t.Errorf("another module has a new image, and delta is %+v; before it was %+v", now["delta"], lives["delta"])
		}
	})
}

// running is the life of each module, of which so many have a container and so many
// of those a process.
func running(t *testing.T, d *fault.Device, containers, processes int) map[string]fault.Life {
	t.Helper()
	lives, err := d.Lives()
	if err != nil {
		t.Fatal(err)
	}
	run := 0
	for _, l := range lives {
		if l.PID != 0 {
			run++
		}
	}
	if len(lives) != containers || run != processes {
		t.Fatalf("want %d containers, %d of which run: %v", containers, processes, lives)
	}
	return lives
}
