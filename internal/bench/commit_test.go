//go:build bench

package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
)

const commits = 25 // rounds, each a commit that replaces a module

// measureCommitToRunning takes the time from the kick, with the commit in the
// repository, to the first statement of the new module's main: once with the
// image on the disk, once with an image to pull. What a bare containerd client
// needs to replace the same container is containerd's and runc's own.
func measureCommitToRunning(t *testing.T, f *table) {
	r := newRig(t)
	image := r.image("probe")
	r.declare(map[string]string{"probe": body(image, 0)})
	r.startHub()
	r.startAgent()
	conn := r.dial()
	r.healthy(conn)

	bare := r.bareClient(t)
	var warm, theirs, cold []float64
	for round := range commits {
		// In turns, so that a machine that gets slower is slower for both.
		warm = append(warm, ms(r.commitToRunning(conn, image, round+1)))
		theirs = append(theirs, ms(r.bareReplacement(bare)))
		r.healthy(conn)
	}
	for round := range 10 {
		image = r.image(fmt.Sprintf("probe%d", round))
		cold = append(cold, ms(r.commitToRunning(conn, image, commits+round+1)))
	}
	total, least := percentile(warm, 50), percentile(theirs, 50)
	f.add("commit_to_running_warm_p50_ms", total, "ms", "kick to main(), image on disk, one module replaced, %d commits, containerd %s", commits, r.daemon.Version)
	f.add("commit_to_running_warm_p99_ms", percentile(warm, 99), "ms", "the same, worst of %d", commits)
	f.add("bare_replace_p50_ms", least, "ms", "a bare containerd client replaces the same container")
	f.add("commit_to_running_own_share_p50_ms", total-least, "ms", "the difference of the two medians")
	f.add("commit_to_running_pull_p50_ms", percentile(cold, 50), "ms", "kick to main(), image to be verified and pulled from a registry on this machine")
}

// body is a module's definition that differs in each round.
func body(image schema.Image, round int) string {
	return fmt.Sprintf("image: %q, env: ROUND: \"%d\"", image, round)
}

func (r *rig) commitToRunning(conn *nats.Conn, image schema.Image, round int) time.Duration {
	r.declare(map[string]string{"probe": body(image, round)})
	t0 := time.Now()
	if err := reconcile(conn); err != nil {
		r.t.Fatal(err)
	}
	took := r.beganAfter("probe", t0)
	r.healthy(conn)
	return took
}

// bareClient connects to the namespace that the agent works in.
func (r *rig) bareClient(t *testing.T) *client.Client {
	raw, err := client.New(r.daemon.Address, client.WithDefaultNamespace("bench"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return raw
}

// bareReplacement replaces the module's container, as the agent made it, by a
// client that does no more than containerd asks for, to the new one's main. The
// agent is halted meanwhile.
func (r *rig) bareReplacement(raw *client.Client) time.Duration {
	syscall.Kill(r.agent.PID(), syscall.SIGSTOP)
	defer syscall.Kill(r.agent.PID(), syscall.SIGCONT)
	ctx := namespaces.WithNamespace(context.Background(), "bench")
	found, err := raw.ContainerService().List(ctx)
	if err != nil || len(found) != 1 {
		r.t.Fatalf("%d containers, %v", len(found), err)
	}
	t0 := time.Now()
	if err := r.bareReplace(ctx, raw, found[0]); err != nil {
		r.t.Fatal(err)
	}
	return r.beganAfter("probe", t0)
}

func (r *rig) bareReplace(ctx context.Context, raw *client.Client, record containers.Container) error {
	snapshots := raw.SnapshotService(record.Snapshotter)
	if _, err := raw.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: record.ID, Signal: 15}); err != nil {
		return err
	}
	if _, err := raw.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: record.ID}); err != nil {
		return err
	}
	if _, err := raw.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: record.ID}); err != nil {
		return err
	}
	if err := raw.ContainerService().Delete(ctx, record.ID); err != nil {
		return err
	}
	info, err := snapshots.Stat(ctx, record.SnapshotKey)
	if err != nil {
		return err
	}
	if err := snapshots.Remove(ctx, record.SnapshotKey); err != nil {
		return err
	}
	mounts, err := snapshots.Prepare(ctx, record.SnapshotKey, info.Parent)
	if err != nil {
		return err
	}
	if _, err := raw.ContainerService().Create(ctx, record); err != nil {
		return err
	}
	log := "file://" + filepath.Join(r.path("state"), "logs", "probe.log")
	request := &tasks.CreateTaskRequest{ContainerID: record.ID, Stdout: log, Stderr: log}
	for _, m := range mounts {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Options: m.Options})
	}
	if _, err := raw.TaskService().Create(ctx, request); err != nil {
		return err
	}
	_, err = raw.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: record.ID})
	return err
}
