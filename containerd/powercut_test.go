package containerd_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// A power cut soon after a module has started loses the directories that it writes
// to, while containerd's record of them is on the disk: the module could not run
// again before it was removed.
func TestAModuleRunsAgainAtOnceAfterAPowerCut(t *testing.T) {
	t.Parallel()
	eachStore(t, 400, func(s *stage, disk *fault.Disk) {
		s.StateDir = filepath.Join(disk.Dir, "tidemark")
		s.probe = buildProbe(s.t)
		s.image = s.push(s.t, "probe", nil, v1.Config{Entrypoint: []string{"/main"}})
		m := s.module("sensor", "wait")
		m.Mounts = map[string]schema.Mount{"/data": {Volume: "data"}}
		for range 3 {
			c := s.run(m)
			time.Sleep(rand.N(20 * time.Millisecond))
			s.outage(disk, c.PID)
			again, err := s.look("sensor")
			if err != nil { // not even its record was on the disk
				s.t.Logf("after a power cut: %v", err)
				continue
			}
			began := time.Now()
			if err := s.Restart(s.ctx, again.ID, 1); err != nil {
				s.t.Fatalf("the first Restart after a power cut: %v", err)
			}
			if got := s.find("sensor"); got.State != schema.StateRunning {
				s.t.Errorf("after a Restart: %+v", got)
			}
			s.t.Logf("runs again after %v", time.Since(began))
			s.remove("sensor")
		}
	})
}

// What a daemon left that was cut off between naming a snapshot's directory and
// recording it is in the way of the next one.
func TestADirectoryThatIsInTheWayDelaysNoModule(t *testing.T) {
	t.Parallel()
	s := newWorld(t, harness.ContainerdVersions[0]).stage(t)
	s.pull(s.image)
	for i := range 20 { // the next number is among them
		if err := os.MkdirAll(filepath.Join(s.snapshotRoot(), itoa(2+i), "fs"), 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	c := s.run(s.module("sensor", "wait"))
	if c.State != schema.StateRunning {
		s.t.Errorf("%+v", c)
	}
}

// outage cuts the power of a device that runs the process of one module, and
// boots it again.
func (s *stage) outage(disk *fault.Disk, pid int) {
	s.t.Helper()
	keeper := shim(s, pid)
	disk.PowerCut()
	s.daemon.Kill()
	syscall.Kill(keeper, syscall.SIGKILL)
	syscall.Kill(pid, syscall.SIGKILL)
	harness.Eventually(s.t, func() error {
		for _, p := range []int{pid, keeper} {
			if status, err := os.ReadFile("/proc/" + itoa(p) + "/status"); err == nil && !strings.Contains(string(status), "State:\tZ") {
				return fmt.Errorf("process %d is still there", p)
			}
		}
		return nil
	})
	state := s.StateDir
	disk.Remount()
	os.RemoveAll(filepath.Join(s.daemon.Dir, "state"))
	os.RemoveAll(filepath.Join("/run/containerd/runc", s.config.Namespace))
	s.daemon.Start()
	s.open(state)
	s.answers()
	s.age()
}
