package containerd_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
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
// specification. They take turns, so that a busy machine slows both; the
// difference of the medians is ours.
func BenchmarkStart(b *testing.B) {
	for _, version := range harness.ContainerdVersions {
		w := newWorld(b, version)
		b.Run(version, func(b *testing.B) { benchmarkStart(b, w.stage(b)) })
	}
}

func benchmarkStart(b *testing.B, s *stage) {
	m := s.module("sensor", "wait")
	m.Stop.Signal = "SIGKILL"
	p := proof(b, m.Image)
	s.run(m)
	s.Attach = nil
	id := s.find("sensor").ID
	record, err := s.raw().ContainerService().Get(s.ctx, id)
	if err != nil {
		b.Fatal(err)
	}
	raw := s.raw()
	var ours, minimal []time.Duration
	measure := func(all *[]time.Duration, start func() error) {
		if err := s.Remove(s.ctx, id); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if err := start(); err != nil {
			b.Fatal(err)
		}
		*all = append(*all, time.Since(began))
	}
	for b.Loop() {
		measure(&ours, func() error { return s.Start(s.ctx, m, "c", p) })
		measure(&minimal, func() error { return startMinimal(s, raw, record) })
	}
	b.ReportMetric(median(ours), "runtime-p50-ms")
	b.ReportMetric(median(minimal), "minimal-p50-ms")
	b.ReportMetric(median(ours)-median(minimal), "own-p50-ms")
	if s.find("sensor").State != schema.StateRunning {
		b.Error("the last one does not run")
	}
}

func startMinimal(s *stage, raw *client.Client, record containers.Container) error {
	if _, err := raw.ContainerService().Create(s.ctx, record); err != nil {
		return err
	}
	mounts, err := raw.SnapshotService("overlayfs").Prepare(s.ctx, record.ID, record.Labels["tidemark.io/chain"])
	if err != nil {
		return err
	}
	request := &tasks.CreateTaskRequest{ContainerID: record.ID}
	for _, m := range mounts {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Options: m.Options})
	}
	if _, err := raw.TaskService().Create(s.ctx, request); err != nil {
		return err
	}
	_, err = raw.TaskService().Start(s.ctx, &tasks.StartRequest{ContainerID: record.ID})
	return err
}

// median is in milliseconds.
func median(all []time.Duration) float64 {
	slices.Sort(all)
	return float64(all[len(all)/2]) / float64(time.Millisecond)
}
