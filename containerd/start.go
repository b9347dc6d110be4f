package containerd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"github.com/tidemark-edge/tidemark/containerd/cgroup"
	"github.com/tidemark-edge/tidemark/containerd/specification"
	"github.com/tidemark-edge/tidemark/containerd/store"
	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// Start makes the container of module and runs it. A container that runs
// already is left alone; what an interrupted Start left is removed first.
func (r *Runtime) Start(ctx context.Context, module schema.Module, commit string, proof signing.Verified) error {
	if err := r.start(ctx, module, commit, proof.Image()); err != nil {
		return fmt.Errorf("start %s: %w", module.Name, err)
	}
	return nil
}

func (r *Runtime) start(ctx context.Context, module schema.Module, commit string, proven schema.Image) error {
	if err := schema.CheckName(module.Name); err != nil {
		return err
	}
	if proven == "" || proven != module.Image {
		return fmt.Errorf("no proof that image %s is signed (the proof is for %q)", module.Image, proven)
	}
	if err := r.host().CheckNetwork(module); err != nil {
		return err
	}
	if _, err := parseSignal(stopOf(module.Stop).Signal); err != nil {
		return err
	}
	id := containerID(module.Name, module.Hash())
	unlock, err := r.busy.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	running, err := r.clear(ctx, id)
	if running || err != nil {
		return err
	}
	return r.make(ctx, id, module, commit)
}

// clear reports whether the container runs, and removes it when it does not.
func (r *Runtime) clear(ctx context.Context, id string) (running bool, err error) {
	_, err = r.client.ContainerService().Get(ctx, id)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for its container: %w", err)
	}
	if running, err := r.runs(ctx, id); running || err != nil {
		return running, err
	}
	return false, r.remove(ctx, id)
}

// make makes and launches a container that is not there. The container record
// comes first and owns the snapshot from its first moment on.
func (r *Runtime) make(ctx context.Context, id string, module schema.Module, commit string) (err error) {
	files, err := r.Images.Rootfs(ctx, module.Image)
	if err != nil {
		return err
	}
	rec := record{
		module: module.Name, hash: module.Hash(), commit: commit, image: module.Image, chain: files.Chain,
		network: module.Network, stop: stopOf(module.Stop), started: time.Now(),
	}
	container, err := r.draw(ctx, id, module, files, &rec)
	if err != nil {
		return err
	}
	if _, err := r.client.ContainerService().Create(ctx, container); err != nil {
		return fmt.Errorf("record its container: %w", err)
	}
	defer func() {
		if err != nil {
			ctx, cancel := detached(ctx)
			defer cancel()
			// What stays is seen by Observe, and removed by the next Start.
			_ = r.remove(ctx, id)
		}
	}()
	failpoint.Reach("containerd.recorded")
	mounts, err := r.Images.Prepare(ctx, id, files.Chain)
	if err != nil {
		return fmt.Errorf("make its root filesystem: %w", err)
	}
	failpoint.Reach("containerd.prepared")
	return r.launch(ctx, id, rec, mounts)
}

// draw completes rec with the user and writes the container record.
func (r *Runtime) draw(ctx context.Context, id string, module schema.Module, files store.Rootfs, rec *record) (containers.Container, error) {
	wishes, err := r.Images.Config(ctx, files)
	if err != nil {
		return containers.Container{}, err
	}
	if rec.user, err = r.Images.User(ctx, files, module.User); err != nil {
		return containers.Container{}, err
	}
	identity, env, err := r.identity(ctx, *rec)
	if err != nil {
		return containers.Container{}, err
	}
	mounts, err := r.host().Mounts(module, rec.user, identity)
	if err != nil {
		return containers.Container{}, err
	}
	spec, err := specification.Blueprint{
		Module: module, Image: wishes, User: rec.user, Cgroup: cgroup.Path(r.config.Namespace, id),
		Mounts: mounts, Env: env, Swap: cgroup.SwapAccounted(r.config.Namespace), Files: specification.FileLimit(),
	}.Specification()
	if err != nil {
		return containers.Container{}, err
	}
	container := containers.Container{
		ID: id, Labels: rec.labels(), Image: string(module.Image), SnapshotKey: id, Snapshotter: r.config.Snapshotter,
		Runtime: containers.RuntimeInfo{Name: r.config.Runtime},
	}
	if container.Spec, err = typeurl.MarshalAny(spec); err != nil {
		return containers.Container{}, fmt.Errorf("specification: %w", err)
	}
	if container.Runtime.Options, err = r.runtimeOptions(); err != nil {
		return containers.Container{}, err
	}
	container.Labels[labelSeal] = seal(container)
	return container, nil
}

// identity asks for the module's credential.
func (r *Runtime) identity(ctx context.Context, rec record) (dir string, env map[string]string, err error) {
	if r.Identity == nil {
		return "", nil, nil
	}
	dir, env, err = r.Identity(ctx, rec.module, rec.user.UID, rec.user.GID)
	if err != nil {
		return "", nil, fmt.Errorf("identity: %w", err)
	}
	if dir == "" {
		return "", nil, errors.New("identity: no directory")
	}
	return dir, env, nil
}

// runtimeOptions tells a runc shim where runc is.
func (r *Runtime) runtimeOptions() (typeurl.Any, error) {
	if r.config.Runc == "" || !strings.HasPrefix(r.config.Runtime, "io.containerd.runc.") {
		return nil, nil
	}
	return typeurl.MarshalAny(&options.Options{BinaryName: r.config.Runc})
}
