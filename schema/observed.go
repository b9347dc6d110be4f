package schema

import "time"

// Observed is what the container runtime says exists under our namespace.
type Observed struct {
	Containers []Container
}

// Container is one container as observed.
type Container struct {
	ID        string    // the runtime's id
	Module    string    // the module it was made for; empty when it is not ours
	Image     Image     // what it was made from
	Hash      string    // Module.Hash of the definition it was made from
	Commit    string    // the revision that made it
	State     string    // StateCreated, StateRunning or StateExited
	PID       int       // of its first process, when running; 0 otherwise
	StartedAt time.Time // of the present or last run; zero when unknown
	ExitedAt  time.Time // zero while running or when unknown
	ExitCode  int       // 128+n for signal n; meaningful when exited
	OOMKilled bool      // the kernel ended it for its memory limit
	Restarts  int       // restarts since the definition was started or was last stable
	Ended     string    // why the agent ended its process; empty when it runs, or ended by itself
	Drift     string    // how the container differs from what was made for its definition; empty when it does not

	// What the reconciler's probes add to what the runtime says.
	Health       string    // one of the Health constants; empty where the module has no probes
	HealthSince  time.Time // since when Health says so
	HealthReason string    // why it is not HealthHealthy: "liveness: GET :8080/: status 503"
}

// What Container.State may say.
const (
	StateCreated = "created" // no process was ever started, or none is left to ask
	StateRunning = "running"
	StatePaused  = "paused" // somebody froze its processes
	StateExited  = "exited"
)
