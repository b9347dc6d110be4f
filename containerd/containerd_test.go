package containerd_test

import (
	"flag"
	"os"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

// scenario is a test on a stage of its own.
type scenario struct {
	name string
	play func(*stage)
}

// scenarios run on every supported version of containerd, many at a time.
var scenarios = []scenario{
	{"a module is pulled, started and observed", startAndObserve},
	{"an agent that is started again adopts what runs", adoption},
	{"restart keeps the container and counts", restart},
	{"a killed module is observed with its signal", killed},
	{"a module beyond its memory limit is observed as such", outOfMemory},
	{"a foreign container is listed and removed", foreign},
	{"a module that ignores its stop signal is killed", stubborn},
	{"stop keeps the container and says why", stopKeeps},
	{"any reason to stop is kept as far as it goes", stopReason},
	{"a signal reaches a module that runs", signalled},
	{"what somebody does with ctr is seen and mended", interference},
	{"a paused module goes on", paused},
	{"a changed record is drift", drift},
	{"two definitions of a module run side by side", beside},
	{"probes ask inside the module's network", probeNetwork},
	{"probes by command have the module's rights and no more", probeRights},
	{"probes by command answer and leave nothing", probeExec},
	{"a command that never ends is ended with its children", probeHangs},
	{"a shim that hangs holds up no prober", probeHungShim},
	{"a command of an agent that was killed goes", probeOrphan},
	{"a module is confined", confinement},
	{"root in a module is confined", rootless},
	{"network none has only a loopback", networkNone},
	{"network host is for those who may", networkHost},
	{"host paths are for those who may", hostMounts},
	{"limits hold", limits},
	{"volumes belong to the module", volumes},
	{"a user that is none does not become root", wrongUsers},
	{"nothing starts without its proof", unproven},
	{"what is on the disk needs no registry", offline},
	{"what is needed is not collected", collection},
	{"a power cut while an image is unpacked", powerCut},
	{"an interrupted pull goes on", resumed},
	{"a registry that cannot go on in the middle", notResumed},
	{"a corrupt download is thrown away", corrupted},
	{"a registry with a password and a certificate", privateRegistry},
	{"an index", index},
	{"events are kicks", watch},
	{"own doing kicks nobody", ownDoingKicksNobody},
	{"a dead shim", deadShim},
	{"no duplicate container after a shim has left its module behind", noDuplicateContainer},
	{"debris of a daemon that was killed is swept away", debris},
	{"what is half made or half removed goes", leftovers},
	{"a Start that is cut off", halfMade},
}

// alone are those that end the daemon, or count what others would change.
var alone = []scenario{
	{"nothing is left after many rounds", leaks},
	{"no duplicate container when the daemon is killed midway", killedMidway},
	{"a full disk stops no module from running again", fullDisk},
	{"a daemon that goes away is noticed at once", deadDaemonKicks},
	{"a daemon that is started again", daemonRestart},
	{"a reboot", reboot},
}

// TestMain runs more tests at a time than there are processors: they mostly wait
// for daemons, shims and modules.
func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", "8"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func TestContainerd(t *testing.T) {
	t.Parallel()
	for _, version := range harness.ContainerdVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			newWorld(t, version).play(t, scenarios, alone)
		})
	}
}

// play plays scenarios on one daemon: the first side by side, each in a namespace
// of its own, and then the others one by one.
func (w *world) play(t *testing.T, together, alone []scenario) {
	t.Run("together", func(t *testing.T) {
		for _, s := range together {
			t.Run(s.name, func(t *testing.T) {
				t.Parallel()
				s.play(w.stage(t))
			})
		}
	})
	for _, s := range alone {
		t.Run(s.name, func(t *testing.T) { s.play(w.stage(t)) })
	}
}
