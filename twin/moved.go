package twin

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"
)

// MaxSpread is the longest that a Moved may have a device wait.
const MaxSpread = 10 * time.Minute

// Moved is what the hub says on FleetMoved. It is a hint, without proof: a device
// looks for itself.
type Moved struct {
	Commit string        // that the hub accepted
	Spread time.Duration // a device looks at some moment within it, so that a whole fleet does not at once
}

// moved is its form on the wire: {"commit":"1f0c…","spread":"50s"}.
type moved struct {
	Commit string `json:"commit"`
	Spread string `json:"spread,omitempty"`
}

// Encode writes it.
func (m Moved) Encode() []byte {
	w := moved{Commit: m.Commit}
	if m.Spread > 0 {
		w.Spread = m.Spread.String()
	}
	data, _ := json.Marshal(w) // two strings
	return data
}

// ReadMoved reads what Encode writes.
func ReadMoved(data []byte) (Moved, error) {
	var w moved
	if len(data) > maxMoved {
		return Moved{}, fmt.Errorf("read %s: %d bytes are more than it has", FleetMoved, len(data))
	}
	if err := json.Unmarshal(data, &w); err != nil {
		return Moved{}, fmt.Errorf("read %s: %w", FleetMoved, err)
	}
	m := Moved{Commit: w.Commit}
	if w.Spread == "" {
		return m, nil
	}
	var err error
	if m.Spread, err = time.ParseDuration(w.Spread); err != nil || m.Spread < 0 || m.Spread > MaxSpread {
		return Moved{}, fmt.Errorf("read %s: spread %.40q: want a time from 0s to %s", FleetMoved, w.Spread, MaxSpread)
	}
	return m, nil
}

// maxMoved bounds it, in bytes.
const maxMoved = 1 << 10

// Wait is how long this device waits before it looks: another time with each call,
// evenly from 0 to Spread.
func (m Moved) Wait() time.Duration {
	if m.Spread <= 0 {
		return 0
	}
	return rand.N(min(m.Spread, MaxSpread))
}
