//go:build bench

package bench

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/tidemark-edge/tidemark/containerd"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

const passes = 50

// measurePass takes the processor time and the allocations of a pass that finds
// everything as declared: a reconciler of this process over a real containerd.
func measurePass(t *testing.T, f *table) {
	daemon := harness.Containerd(t, "2")
	image := harness.PushImage(t, harness.Registry(t), "module", filepath.Join(harness.Root(), "internal", "bench", "module"))
	for _, n := range []int{1, 10, 100, 200} {
		cpu, allocations := noopPass(t, daemon, image, n)
		f.add(fmt.Sprintf("noop_pass_%d_cpu_ms", n), cpu, "ms CPU", "observe, judge, diff and report %d running modules, mean of %d passes", n, passes)
		f.add(fmt.Sprintf("noop_pass_%d_allocs", n), allocations, "allocs", "the same")
		if n == 200 {
			f.add("observe_diff_200_cpu_ms", cpu, "ms CPU", "the same as noop_pass_200_cpu_ms, judging and reporting included; the agent's time, not containerd's")
		}
	}
}

func noopPass(t *testing.T, daemon *harness.Daemon, image schema.Image, n int) (cpuMillis, allocations float64) {
	ctx, cancel := context.WithCancel(context.Background())
	rt, err := containerd.Open(schema.ContainerdConfig{Address: daemon.Address, Runc: daemon.Runc, Namespace: fmt.Sprintf("pass%d", n)})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	rt.StateDir = t.TempDir()
	observed := observedRuntime{rt, make(chan struct{}, 1)}
	r := &reconciler.Reconciler{
		Device: deviceName, StateDir: t.TempDir(), Poll: time.Hour, Log: slog.New(slog.DiscardHandler),
		Source: still{}, Renderer: modules{n, image}, Verifier: signingtest.Accept(t, image), Runtime: observed, Store: rt.Images, Reporter: nobody{},
	}
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	defer func() { cancel(); <-done }()
	patiently(t, func() error {
		if p := r.Report().Phase; p != schema.PhaseHealthy {
			return fmt.Errorf("%d modules: phase %s", n, p)
		}
		return nil
	})
	pass := func() {
		select { // of a pass that nobody asked for
		case <-observed.done:
		default:
		}
		r.Kick()
		<-observed.done
		time.Sleep(5 * time.Millisecond) // lets the rest of the pass end
	}
	for range 10 {
		pass()
	}
	// What waiting itself costs is measured and taken off.
	idle := usage(func() {
		for range passes {
			time.Sleep(5 * time.Millisecond)
		}
	})
	spent := usage(func() {
		for range passes {
			pass()
		}
	})
	return max(0, spent.cpu-idle.cpu) / passes, float64(spent.mallocs-idle.mallocs) / passes
}

type used struct {
	cpu     float64 // ms
	mallocs uint64
}

// usage is what f costs this process.
func usage(f func()) used {
	cpu := func() float64 {
		var u syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e6
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := cpu()
	f()
	spent := cpu() - began
	runtime.ReadMemStats(&after)
	return used{spent, after.Mallocs - before.Mallocs}
}

// observedRuntime tells when it was observed.
type observedRuntime struct {
	reconciler.Runtime
	done chan struct{}
}

func (o observedRuntime) Observe(ctx context.Context) (schema.Observed, error) {
	defer func() {
		select {
		case o.done <- struct{}{}:
		default:
		}
	}()
	return o.Runtime.Observe(ctx)
}

// still is a repository with one commit.
type still struct{}

func (still) Fetch(context.Context) (schema.Revision, fs.FS, error) {
	return schema.Revision{Commit: "0123456789abcdef0123456789abcdef01234567"}, fstest.MapFS{}, nil
}

func (s still) Accepted() (schema.Revision, fs.FS, error) { return s.Fetch(context.Background()) }

// modules renders n modules of one image.
type modules struct {
	n     int
	image schema.Image
}

func (m modules) Render(context.Context, fs.FS, string) (schema.Desired, error) {
	d := schema.Desired{Device: deviceName}
	for i := range m.n {
		d.Modules = append(d.Modules, schema.Module{
			Name: fmt.Sprintf("m%03d", i), Image: m.image, Status: schema.StatusRunning, Network: schema.NetworkNone,
			Restart: schema.Restart{Policy: schema.RestartAlways, Min: schema.Duration(time.Second), Max: schema.Duration(time.Minute)},
			Stop:    schema.Stop{Signal: "SIGTERM", Timeout: schema.Duration(time.Second)},
		})
	}
	return d, nil
}

// nobody listens to reports.
type nobody struct{}

func (nobody) Declare(context.Context, schema.Desired) error { return nil }
func (nobody) Report(context.Context, schema.Report) error   { return nil }
