package containerd_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// cpu is the processor time that this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkObserve looks at running modules; cpu-ms/op is what the agent
// spends, without the daemon.
func BenchmarkObserve(b *testing.B) {
	for _, version := range harness.ContainerdVersions {
		w := newWorld(b, version)
		s := w.stage(b)
		have := 0
		for _, n := range []int{1, 10, 100} {
			for ; have < n; have++ {
				m := s.module(fmt.Sprintf("m%d", have), "wait")
				m.Stop.Signal = "SIGKILL"
				s.run(m)
			}
			b.Run(fmt.Sprintf("%s/%d", version, n), func(b *testing.B) {
				b.ReportAllocs()
				before := cpu(b)
				for b.Loop() {
					o, err := s.Observe(s.ctx)
					if err != nil || len(o.Containers) != n {
						b.Fatalf("%d containers, %v", len(o.Containers), err)
					}
				}
				b.ReportMetric(float64(cpu(b)-before)/1e6/float64(b.N), "cpu-ms/op")
			})
		}
	}
}

// BenchmarkStart starts a module whose image is on the disk: by a Runtime, and
// by a client that does no more than containerd asks for, with the same
// specification. The difference is ours.
func BenchmarkStart(b *testing.B) {
	for _, version := range harness.ContainerdVersions {
		w := newWorld(b, version)
		s := w.stage(b)
		m := s.module("sensor", "wait")
		m.Stop.Signal = "SIGKILL"
		p := proof(b, m.Image)
		s.run(m)
		s.Attach = nil
		id := s.find("sensor").ID
		raw := s.raw()
		record, err := raw.ContainerService().Get(s.ctx, id)
		if err != nil {
			b.Fatal(err)
		}
		chain := record.Labels["tidemark.io/chain"]
		again := func(b *testing.B, start func() error) {
			for b.Loop() {
				b.StopTimer()
				if err := s.Remove(s.ctx, id); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if err := start(); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.Run(version+"/runtime", func(b *testing.B) {
			again(b, func() error { return s.Start(s.ctx, m, "c", p) })
		})
		b.Run(version+"/minimal", func(b *testing.B) {
			again(b, func() error {
				if _, err := raw.ContainerService().Create(s.ctx, record); err != nil {
					return err
				}
				mounts, err := raw.SnapshotService("overlayfs").Prepare(s.ctx, id, chain)
				if err != nil {
					return err
				}
				request := &tasks.CreateTaskRequest{ContainerID: id}
				for _, m := range mounts {
					request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Options: m.Options})
				}
				if _, err := raw.TaskService().Create(s.ctx, request); err != nil {
					return err
				}
				_, err = raw.TaskService().Start(s.ctx, &tasks.StartRequest{ContainerID: id})
				return err
			})
		})
		if s.find("sensor").State != schema.StateRunning {
			b.Error("the last one does not run")
		}
	}
}
