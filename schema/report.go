package schema

import "time"

// Report is what the agent says of the device: properties.reported of the
// device twin. The words of LastDesiredStatus and of ModuleReport.RuntimeStatus
// are Azure IoT Edge's edgeAgent's.
type Report struct {
	Agent             AgentInfo               `json:"agent"`
	Phase             string                  `json:"phase"` // one of the Phase constants
	Revision          Revision                `json:"revision,omitzero"`
	LastGood          Revision                `json:"lastGood,omitzero"`
	LastDesiredStatus Status                  `json:"lastDesiredStatus"`
	Refused           *Refusal                `json:"refused,omitempty"` // the newest commit, when it is not what runs
	Newest            Revision                `json:"newest,omitzero"`   // newest acceptable commit, when it is not Revision
	Order             *Order                  `json:"order,omitempty"`   // what a person ordered and what keeps the device from following Git
	Modules           map[string]ModuleReport `json:"modules,omitempty"`

	Surroundings // of the modules; in JSON among the fields above
}

// AgentInfo describes the agent itself.
type AgentInfo struct {
	Version       string `json:"version"`
	Platform      string `json:"platform"`      // "linux/arm64"
	VerifyCommits string `json:"verifyCommits"` // "signed" or "off"
}

// What Report.Phase may say.
const (
	PhaseWaiting     = "waiting"      // nothing accepted yet, or the source cannot be reached
	PhaseFetching    = "fetching"     // asking the fleet repository
	PhaseRendering   = "rendering"    // turning the commit into this device's definition
	PhaseVerifying   = "verifying"    // checking image signatures
	PhaseStaging     = "staging"      // bringing images to the disk
	PhaseSwitching   = "switching"    // replacing modules
	PhaseGating      = "gating"       // changed modules run, on trial until their gate has passed
	PhaseHealthy     = "healthy"      // the revision is last-good
	PhaseRollingBack = "rolling-back" // returning to last-good
	PhaseRolledBack  = "rolled-back"  // last-good runs; the newer revision is refused
	PhaseSuspended   = "suspended"    // a person ordered that no newer revision is taken over
)

// Status is the outcome of the newest desired state that the device saw.
type Status struct {
	Code        int    `json:"code"` // one of the Code constants
	Description string `json:"description,omitempty"`
}

// Azure IoT Edge's lastDesiredStatus codes.
const (
	CodeOK        = 200
	CodeBadConfig = 400 // refused: does not render, or an image may not run here
	CodeOffline   = 406 // the source or the registry cannot be reached
	CodeEmpty     = 417 // nothing accepted yet
	CodeFailed    = 500 // accepted, but it does not run healthy
)

// Refusal says which commit is not run, at which step it stopped, and why.
type Refusal struct {
	Revision Revision  `json:"revision"`
	Phase    string    `json:"phase"`            // the step that refused
	Module   string    `json:"module,omitempty"` // where one module is the reason
	Reason   string    `json:"reason"`           // file:line:col where there is one
	Output   string    `json:"output,omitempty"` // the last lines that Module printed, where they say more
	By       string    `json:"by,omitempty"`     // who ordered it, where a person did
	At       time.Time `json:"at"`
}

// ModuleReport is the state of one declared module.
type ModuleReport struct {
	RuntimeStatus     string    `json:"runtimeStatus"` // one of the Runtime constants
	StatusDescription string    `json:"statusDescription,omitempty"`
	Image             Image     `json:"image"`
	Commit            string    `json:"commit,omitempty"` // the revision that made the container
	PID               int       `json:"pid,omitempty"`
	ExitCode          int       `json:"exitCode,omitempty"`
	OOMKilled         bool      `json:"oomKilled,omitempty"`
	Restarts          int       `json:"restartCount"`
	StartedAt         time.Time `json:"lastStartTime,omitzero"`
	ExitedAt          time.Time `json:"lastExitTime,omitzero"`
	Output            string    `json:"lastOutput,omitempty"`     // the last lines that it printed before it ended or became unhealthy
	Downtime          Duration  `json:"updateDowntime,omitempty"` // from the end of the container before to the start of this one, when it was replaced last
	Evidence          *Evidence `json:"evidence,omitempty"`
}

// What ModuleReport.RuntimeStatus may say.
const (
	RuntimeStarting  = "starting" // runs; its startup or readiness probe has not succeeded yet, nor failed as often as it may
	RuntimeRunning   = "running"
	RuntimeStopped   = "stopped"   // by declaration, or ended and its policy does not restart it
	RuntimeFailed    = "failed"    // ended with an error and its policy does not restart it, or it cannot be started
	RuntimeBackoff   = "backoff"   // ended; waits for its next start
	RuntimeUnhealthy = "unhealthy" // runs, and a probe says no
	RuntimeUnknown   = "unknown"   // declared, not yet observed
)

// Evidence records why an image was accepted. It carries no secret.
type Evidence struct {
	Image    Image     `json:"image"`
	Signer   string    `json:"signer"` // "key sha256:<fingerprint>" or the certificate's subject and issuer
	Rule     string    `json:"rule"`   // the policy rule that accepted it
	Format   string    `json:"format"` // "cosign-signature" or "sigstore-bundle"
	Verified time.Time `json:"verified"`
}
