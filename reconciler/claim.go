package reconciler

import (
	"fmt"
	"slices"

	"github.com/tidemark-edge/tidemark/schema"
)

// claimed is a module that shall run, with the container that is as declared;
// the container's ID is empty where there is none.
type claimed struct {
	*entry
	container schema.Container
}

// claim gives each module that shall run its one container: of those with the
// right hash, and unchanged since they were made, the one that runs, else the
// one that exited, else any.
func claim(desired *catalog, observed schema.Observed) map[string]claimed {
	kept := make(map[string]claimed, len(desired.byName))
	for name, e := range desired.byName {
		if e.Status != schema.StatusStopped {
			kept[name] = claimed{entry: e}
		}
	}
	for _, c := range observed.Containers {
		k, ok := kept[c.Module]
		if ok && c.Hash == k.hash && c.Drift == "" && (k.container.ID == "" || liveliness(c) > liveliness(k.container)) {
			kept[c.Module] = claimed{k.entry, c}
		}
	}
	return kept
}

func liveliness(c schema.Container) int {
	return slices.Index([]string{schema.StateCreated, schema.StateExited, schema.StatePaused, schema.StateRunning}, c.State)
}

// running reports whether the module runs, healthy or not.
func (k claimed) running() bool { return k.container.State == schema.StateRunning }

// healthy reports whether the module runs and none of its probes says
// otherwise, nor has yet to say so.
func (k claimed) healthy() bool {
	return k.running() && (k.Health.IsZero() || k.container.Health == schema.HealthHealthy)
}

// done reports whether the module has done its work: it ended well, and its
// policy lets it rest.
func (k claimed) done() bool {
	c := k.container
	return c.State == schema.StateExited && !failed(c) && !restarts(k.Module, c)
}

// beyondHope reports whether the module runs, unhealthy, and its policy says
// that it be run again.
func (k claimed) beyondHope() bool {
	return k.running() && k.container.Health == schema.HealthUnhealthy && !k.Health.IsZero() &&
		(k.Restart.Policy == schema.RestartAlways || k.Restart.Policy == schema.RestartOnUnhealthy)
}

// restarts reports whether m is to run again after c ended as it did.
func restarts(m schema.Module, c schema.Container) bool {
	switch m.Restart.Policy {
	case schema.RestartNever:
		return false
	case schema.RestartOnFailure, schema.RestartOnUnhealthy:
		return failed(c)
	default:
		return true
	}
}

// failed reports whether c ended otherwise than by doing its work.
func failed(c schema.Container) bool { return c.ExitCode != 0 || c.OOMKilled || c.Ended != "" }

// stable reports whether c ran long enough for its restarts to be forgotten.
func stable(c schema.Container) bool {
	return !c.StartedAt.IsZero() && c.ExitedAt.Sub(c.StartedAt) >= StableAfter
}

// ending says how c ended: "exited with code 3".
func ending(c schema.Container) string {
	switch {
	case c.State == schema.StateCreated:
		return "lost its process"
	case c.Ended != "":
		return "was stopped: " + c.Ended
	case c.OOMKilled:
		return "was killed for its memory limit"
	case c.ExitCode > 128 && c.ExitCode <= 128+64:
		return fmt.Sprintf("was ended by signal %d", c.ExitCode-128)
	default:
		return fmt.Sprintf("exited with code %d", c.ExitCode)
	}
}

// ailing says why k, which runs, is not healthy: "is unhealthy: liveness: status
// 503".
func (k claimed) ailing() string {
	state, reason := k.container.Health, k.container.HealthReason
	switch state {
	case "", schema.HealthStarting:
		state = "starting"
	case schema.HealthUnready:
		state = "not ready"
	}
	if reason != "" {
		reason = ": " + reason
	}
	return "is " + state + reason
}
