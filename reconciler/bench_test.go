package reconciler_test

import (
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
)

// BenchmarkNoOpPass is one pass over a device that is as declared.
func BenchmarkNoOpPass(b *testing.B) {
	for _, n := range []int{1, 10, 100, 200} {
		b.Run(fmt.Sprintf("modules=%d", n), func(b *testing.B) {
			pass := settledPass(b, n)
			b.ReportAllocs()
			before := cpu(b)
			b.ResetTimer()
			for b.Loop() {
				pass()
			}
			b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/1e6, "cpu-ms/op")
		})
	}
}

// BenchmarkDiff compares 200 modules with their containers: all as declared, and
// all made from another definition. The definitions are hashed each time, which a
// pass does not.
func BenchmarkDiff(b *testing.B) {
	for name, value := range map[string]string{"as declared": "1", "all changed": "2"} {
		b.Run(name, func(b *testing.B) {
			desired, _ := fleetOf(200, "1")
			_, observed := fleetOf(200, value)
			b.ReportAllocs()
			for b.Loop() {
				reconciler.Diff(desired, observed, time.Unix(0, 0))
			}
		})
	}
}

// BenchmarkJudge judges a revision that changes 200 modules.
func BenchmarkJudge(b *testing.B) {
	desired, observed := fleetOf(200, "2")
	lastGood, _ := fleetOf(200, "1")
	trial := reconciler.Trial{Desired: desired, LastGood: lastGood}
	b.ReportAllocs()
	for b.Loop() {
		if v := reconciler.Judge(trial, observed, time.Unix(3600, 0)); v.State != reconciler.Healthy {
			b.Fatal(v)
		}
	}
}

// fleetOf are the definitions of n modules, and their containers, all of which
// run.
func fleetOf(n int, value string) (desired schema.Desired, observed schema.Observed) {
	desired = schema.Desired{Revision: schema.Revision{Commit: value}, Device: "hannover01"}
	for i := range n {
		m := module(fmt.Sprintf("module-%03d", i), env(value))
		m.Args = []string{"--verbose", "--interval=10s"}
		m.Mounts = map[string]schema.Mount{"/data": {Volume: "data"}}
		desired.Modules = append(desired.Modules, m)
		observed.Containers = append(observed.Containers, schema.Container{
			ID: m.Name, Module: m.Name, Image: m.Image, Hash: m.Hash(), State: schema.StateRunning, PID: i + 1, StartedAt: time.Unix(0, 0),
		})
	}
	return desired, observed
}

// settledPass is a pass over n modules, all of which run.
func settledPass(b *testing.B, n int) (pass func()) {
	b.Helper()
	m := newMachine(b)
	desired, observed := fleetOf(n, "1")
	for _, c := range observed.Containers {
		m.plant(c)
	}
	r := &reconciler.Reconciler{
		Device: desired.Device, StateDir: b.TempDir(), Log: slog.New(slog.DiscardHandler),
		Runtime: m, Store: m, Reporter: &twin{handed: func() {}}, Verifier: accept(b),
	}
	return r.Settled(b.Context(), desired)
}

// cpu is the processor time of this process in nanoseconds.
func cpu(b *testing.B) int64 {
	b.Helper()
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return use.Utime.Nano() + use.Stime.Nano()
}
