package schema

import "time"

// Order is what a person ordered, and what keeps the device from following Git
// until it is taken back.
type Order struct {
	Kind     string    `json:"kind"`              // OrderSuspend or OrderHold
	Revision Revision  `json:"revision,omitzero"` // OrderHold: what runs in place of what Git says
	By       string    `json:"by"`                // who, as they said
	At       time.Time `json:"at"`
	Reason   string    `json:"reason,omitempty"`
}

// What Order.Kind may say.
const (
	OrderSuspend = "suspend" // take over nothing newer than what runs
	OrderHold    = "hold"    // run this revision until resumed
)

// Event is an entry of the device's history.
type Event struct {
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"` // one of the Event constants
	Revision Revision  `json:"revision,omitzero"`
	Module   string    `json:"module,omitempty"` // where one module is the reason
	Reason   string    `json:"reason,omitempty"`
	Output   string    `json:"output,omitempty"` // the last lines that Module printed
	By       string    `json:"by,omitempty"`     // who, where a person did it
}

// What Event.Kind may say.
const (
	EventTakenOver  = "taken-over"     // the revision is the target, on trial
	EventHealthy    = "healthy"        // it passed its gate
	EventRefused    = "refused"        // it is not run
	EventRolledBack = "rolled-back"    // it failed its trial, or a person left it
	EventRetry      = "retry"          // a person had it tried again
	EventSuspend    = "suspend"        // a person stopped updates
	EventHold       = "hold"           // a person had the device stay at the revision
	EventResume     = "resume"         // a person let the device follow Git again
	EventOverride   = "override"       // a person set desired of a twin over what Git says
	EventOverridden = "override-ended" // such an override ended; Reason says how
	EventRotate     = "rotate"         // a person had a module get a new key
	EventReconcile  = "reconcile"      // a person had the device look at Git at once; again and again by the same is once
)
