package schema

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Module is one declared unit of software. Its fields are those of #Module.
type Module struct {
	Name      string                `json:"name"`
	Image     Image                 `json:"image"`
	Status    string                `json:"status"`              // StatusRunning or StatusStopped
	Args      []string              `json:"args,omitempty"`      // replaces the image's command (CMD); the entry point stays
	Env       map[string]string     `json:"env,omitempty"`       // added to, and stronger than, the image's
	User      string                `json:"user,omitempty"`      // "uid" or "uid:gid", numeric, up to 2147483647; empty takes the image's
	Restart   Restart               `json:"restart"`             // when it ends by itself
	Stop      Stop                  `json:"stop"`                // when we end it
	Limits    Limits                `json:"limits"`              // cgroup limits
	Mounts    map[string]Mount      `json:"mounts,omitempty"`    // by absolute path in the container
	Network   string                `json:"network"`             // NetworkNone or NetworkHost
	DependsOn map[string]Dependency `json:"dependsOn,omitempty"` // by module name
	Health    Health                `json:"health,omitzero"`     // how to tell that it works
	Update    Update                `json:"update,omitzero"`     // how a new definition replaces the one that runs
	Twin      TwinSpec              `json:"twin,omitzero"`       // the module twin
	Identity  Identity              `json:"identity,omitzero"`   // what its identity may do beyond its own subjects
}

// What Module.Status, Module.Network and Restart.Policy may say. The words of
// status and restart policy are Azure IoT Edge's.
const (
	StatusRunning = "running"
	StatusStopped = "stopped"

	NetworkNone = "none" // loopback only; the leaf answers on it
	NetworkHost = "host" // the device's own network

	RestartAlways      = "always"
	RestartOnFailure   = "on-failure"   // exit code other than 0, or a signal
	RestartOnUnhealthy = "on-unhealthy" // on failure, or when a probe says so
	RestartNever       = "never"
)

// Restart says when a module that ended is started again. The n-th restart
// waits min(Min·2ⁿ, Max); it never gives up for good. With a Min of 0 the first
// restart comes at once, and the waits after it begin at 1s.
type Restart struct {
	Policy string   `json:"policy"` // one of the Restart constants
	Min    Duration `json:"min"`    // 0, or 100ms to 1h; default 10s
	Max    Duration `json:"max"`    // Min, but at least 1s, to 24h; default 5m
}

// Update says how a new definition of a module replaces the container that runs.
// UpdateStartThenStop has two of it until the new one is healthy by all of its
// probes, or, with none, has run for the gate, so it is refused on the host's
// network, with a mount that both would write to, and with a probe by NATS, which
// either could answer.
type Update struct {
	Strategy string `json:"strategy,omitempty"` // UpdateRecreate, which empty is, or UpdateStartThenStop
}

// What Update.Strategy may say.
const (
	UpdateRecreate      = "recreate"        // end the old container, then start the new one
	UpdateStartThenStop = "start-then-stop" // start the new one, and end the old one once the new one is healthy
)

// Stop says how a module is ended: Signal, then SIGKILL after Timeout.
type Stop struct {
	Signal  string   `json:"signal"` // "SIGTERM"
	Timeout Duration `json:"timeout"`
}

// Limits bound what a module may take; zero is no limit.
type Limits struct {
	Memory Bytes   `json:"memory,omitempty"` // resident bytes, swap included
	CPU    float64 `json:"cpu,omitempty"`    // cores
	PIDs   int64   `json:"pids,omitempty"`   // processes and threads
}

// Mount is one of three things: a named volume, which outlives the container
// and the definition, and which only a person deletes; a tmpfs of that size; or
// a host path that the device's own policy allows.
type Mount struct {
	Volume   string `json:"volume,omitempty"`
	Tmpfs    Bytes  `json:"tmpfs,omitempty"`
	Host     string `json:"host,omitempty"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// Dependency says what must hold of another module before this one starts.
type Dependency struct {
	Condition string `json:"condition"` // ConditionStarted or ConditionHealthy
}

// What Dependency.Condition may say.
const (
	ConditionStarted = "started"
	ConditionHealthy = "healthy"
)

// Hash identifies the container that the definition asks for: two definitions
// with the same hash run as the same container. What does not shape the
// container (status, restart policy, dependencies, probes, twin, identity) is left out, so that
// changing it replaces nothing.
func (m Module) Hash() string {
	m.Status, m.Restart, m.DependsOn, m.Twin = "", Restart{}, nil, TwinSpec{}
	m.Health, m.Update, m.Identity = Health{}, Update{}, Identity{}
	b, err := json.Marshal(m)
	if err != nil {
		panic("schema: module does not marshal: " + err.Error()) // no field can fail
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
