package reconciler_test

import (
	"fmt"
	"log/slog"
	"syscall"
	"testing"

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

// settledPass is a pass over n modules, all of which run.
func settledPass(b *testing.B, n int) (pass func()) {
	b.Helper()
	m := newMachine(b)
	desired := schema.Desired{Revision: schema.Revision{Commit: "1"}, Device: "hannover01"}
	for i := range n {
		module := module(fmt.Sprintf("module-%03d", i), env("1"))
		module.Args = []string{"--verbose", "--interval=10s"}
		module.Mounts = map[string]schema.Mount{"/data": {Volume: "data"}}
		desired.Modules = append(desired.Modules, module)
		m.plant(schema.Container{ID: module.Name, Module: module.Name, Image: module.Image, Hash: module.Hash(), State: schema.StateRunning, PID: i + 1})
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
