package schema

import "time"

// Revision is one commit of the fleet repository.
type Revision struct {
	Commit  string    `json:"commit"`            // full hexadecimal object id
	Ref     string    `json:"ref,omitempty"`     // branch or tag it was reached by
	Author  string    `json:"author,omitempty"`  // "Name <mail>", as the commit says: not proven
	Subject string    `json:"subject,omitempty"` // first line of the commit message
	Signer  string    `json:"signer,omitempty"`  // principal whose signature was verified; empty where verification is off
	Time    time.Time `json:"time,omitzero"`     // committer time, as the commit says
}

// IsZero reports whether there is no revision: the device has accepted nothing yet.
func (r Revision) IsZero() bool { return r.Commit == "" }

// Short is the abbreviated commit, 12 digits, for people.
func (r Revision) Short() string {
	if len(r.Commit) > 12 {
		return r.Commit[:12]
	}
	return r.Commit
}
