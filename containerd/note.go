package containerd

import (
	"context"
	"maps"

	"github.com/containerd/containerd/v2/core/containers"

	"github.com/tidemark-edge/tidemark/schema"
)

// note writes labels of a container. A full disk is no error, for what a module
// needs to run, it has: this Runtime then remembers the labels itself, and
// writes them with the next ones. An agent that is started again before that
// finds the former ones: a count of restarts that is too low, an end without a
// reason.
func (r *Runtime) note(ctx context.Context, id string, labels map[string]string) error {
	r.mu.Lock()
	all := maps.Clone(r.owed[id])
	r.mu.Unlock()
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, labels)
	var paths []string
	for label := range all {
		paths = append(paths, "labels."+label)
	}
	_, err := r.client.ContainerService().Update(ctx, containers.Container{ID: id, Labels: all}, paths...)
	if err != nil && !schema.IsNoRoom(err) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.owed, id)
		return nil
	}
	if r.owed == nil {
		r.owed = map[string]map[string]string{}
	}
	r.owed[id] = all
	return nil
}

// remind writes into records what could not be written to the disk, and forgets
// it of containers that are gone.
func (r *Runtime) remind(records []listed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.owed) == 0 {
		return
	}
	owed := make(map[string]map[string]string, len(r.owed))
	for i, c := range records {
		if labels := r.owed[c.container.ID]; labels != nil {
			owed[c.container.ID] = labels
			reminded := map[string]string{}
			maps.Copy(reminded, c.container.Labels)
			maps.Copy(reminded, labels)
			records[i].container.Labels = reminded
			records[i].record, records[i].ours = readRecord(records[i].container)
		}
	}
	r.owed = owed
}
