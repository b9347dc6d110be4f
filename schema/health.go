package schema

import (
	"errors"
	"slices"
)

// Health says how to tell that a module works. A probe that is nil is not made.
// Without any, a module is healthy while it runs.
type Health struct {
	// Startup is made until it has succeeded once; the others are not made before.
	// When it keeps failing the module is unhealthy.
	Startup *Probe `json:"startup,omitempty"`
	// Liveness: when it keeps failing the module is unhealthy, and restarted if
	// its restart policy is always or on-unhealthy.
	Liveness *Probe `json:"liveness,omitempty"`
	// Readiness: while it keeps failing the module is not healthy for those that
	// depend on it, nor for the gate, and is left alone.
	Readiness *Probe `json:"readiness,omitempty"`
}

// IsZero reports whether there is no probe.
func (h Health) IsZero() bool { return h == Health{} }

// Equal reports whether both make the same probes.
func (h Health) Equal(other Health) bool {
	return h.Startup.equal(other.Startup) &&
		h.Liveness.equal(other.Liveness) &&
		h.Readiness.equal(other.Readiness)
}

// Probe is one question to a running module: exactly one of Exec, HTTP, TCP and
// NATS.
type Probe struct {
	Exec *ExecProbe `json:"exec,omitempty"`
	HTTP *HTTPProbe `json:"http,omitempty"`
	TCP  *TCPProbe  `json:"tcp,omitempty"`
	NATS *NATSProbe `json:"nats,omitempty"`

	Interval Duration `json:"interval"` // between two probes; 100ms to 1h, default 10s
	Timeout  Duration `json:"timeout"`  // for one; 10ms to 10m, default 1s
	Failures int      `json:"failures"` // in a row that count as failing; 1 to 1000, default 3
}

// equal compares what the pointers lead to. A list of no words is like none, as
// in JSON.
func (p *Probe) equal(other *Probe) bool {
	if p == nil || other == nil {
		return p == other
	}
	return samePointee(p.HTTP, other.HTTP) && samePointee(p.TCP, other.TCP) && samePointee(p.NATS, other.NATS) &&
		p.Exec.equal(other.Exec) &&
		p.Interval == other.Interval && p.Timeout == other.Timeout && p.Failures == other.Failures
}

func (e *ExecProbe) equal(other *ExecProbe) bool {
	if e == nil || other == nil {
		return e == other
	}
	return slices.Equal(e.Command, other.Command)
}

func samePointee[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// ExecProbe runs a command in the module's container, as the module's user. Exit
// code 0 is success. There is no shell but one that Command names.
type ExecProbe struct {
	Command []string `json:"command"` // the program first; at most 256 words, and MaxArgsBytes together
}

// HTTPProbe asks with GET, in the module's network, on the loopback. A status from
// 200 to 399 is success; redirects are not followed.
type HTTPProbe struct {
	Port int    `json:"port"` // 1 to 65535
	Path string `json:"path"` // with its query, escaped as it goes over the wire; default /
}

// TCPProbe connects, in the module's network, on the loopback.
type TCPProbe struct {
	Port int `json:"port"` // 1 to 65535
}

// NATSProbe calls a direct method of the module through the leaf. An answer that
// is not an error is success.
type NATSProbe struct {
	Method string `json:"method"` // one element of a subject; default health
}

// What Container.Health may say.
const (
	HealthStarting  = "starting"  // its probes have not all succeeded yet
	HealthHealthy   = "healthy"   // all of its probes say so
	HealthUnready   = "unready"   // readiness fails
	HealthUnhealthy = "unhealthy" // startup or liveness fails
)

// ErrNotAsked says of a probe that the question did not reach the module, for a
// reason that is not the module's: containerd does not answer, or the process
// has ended meanwhile. It says nothing about the module's health.
var ErrNotAsked = errors.New("not asked")
