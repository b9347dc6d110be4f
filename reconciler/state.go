package reconciler

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
)

// state is what the device must know after a power cut, with no network. It is
// one file, replaced as a whole: there is never a half of it.
type state struct {
	Target   schema.Desired   `json:"target"`             // what shall run; no revision: nothing was ever accepted
	Trial    bool             `json:"trial"`              // Target has not passed its gate yet
	Starts   starts           `json:"starts,omitzero"`    // how often that trial began again
	Staging  staging          `json:"staging,omitzero"`   // the candidate that is being staged
	LastGood schema.Desired   `json:"lastGood"`           // newest definition that passed its gate; no revision: none did
	Refused  *schema.Refusal  `json:"refused,omitempty"`  // the revision that the device returned from, until a newer one is taken over
	Bad      []schema.Refusal `json:"bad,omitempty"`      // revisions that failed their trial, or that a person left, and are not tried again, oldest first
	Order    *schema.Order    `json:"order,omitempty"`    // what keeps the device from following Git
	Finished finished         `json:"finished,omitempty"` // containers that are done and do not run again
	Return   *comeback        `json:"return,omitempty"`   // an earlier revision that a person wants back, until it is the target
}

// comeback is a return that a person ordered.
type comeback struct {
	Definition schema.Desired `json:"definition"` // of the earlier revision
	Left       schema.Refusal `json:"left"`       // the revision that is left, and why
}

const (
	stateFile    = "state.json"
	stateVersion = 1
	maxState     = 32 << 20 // bytes; three definitions of 200 modules, each with the largest twin, are half of it
	maxBad       = 32       // entries of state.Bad
)

// envelope is the file: the state and what proves that it is whole.
type envelope struct {
	Version int             `json:"version"`
	SHA256  string          `json:"sha256"` // of State's bytes, hexadecimal
	State   json.RawMessage `json:"state"`
}

// loadState reads the state below dir. Where there is none, it is the zero
// state. A broken file is set aside and named by the error, and the state is
// zero: what ran before is unknown, and with no good revision to rebuild it from
// nothing is touched until one is accepted.
func loadState(dir string) (state, error) {
	path := filepath.Join(dir, stateFile)
	b, err := durable.Read(path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	var s state
	if err == nil {
		s, err = decodeState(b)
	}
	if err == nil {
		return s, nil
	}
	aside, asideErr := durable.SetAside(path)
	if asideErr != nil {
		return state{}, fmt.Errorf("read state %s: %w; set it aside: %w", path, err, asideErr)
	}
	return state{}, fmt.Errorf("read state %s: %w; it is set aside as %s", path, err, filepath.Base(aside))
}

// decodeState reads what encodeState wrote, and nothing else.
func decodeState(b []byte) (state, error) {
	var e envelope
	if err := exactly(b, &e); err != nil {
		return state{}, err
	}
	if e.Version != stateVersion {
		return state{}, fmt.Errorf("version %d, want %d", e.Version, stateVersion)
	}
	if sum := sha256.Sum256(e.State); hex.EncodeToString(sum[:]) != e.SHA256 {
		return state{}, errors.New("checksum does not match")
	}
	var s state
	err := exactly(e.State, &s)
	if err != nil {
		return state{}, err
	}
	if s.Return != nil {
		err = check(s.Return.Definition)
	}
	return s, errors.Join(check(s.Target), check(s.LastGood), err)
}

// exactly reads one JSON value. Fields that a newer agent wrote are passed over:
// the checksum covers them, and an agent may be taken back to an older version.
func exactly(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // twins keep every digit
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// check finds what no definition that was ever accepted can say.
func check(d schema.Desired) error {
	for _, m := range d.Modules {
		if err := schema.CheckName(m.Name); err != nil {
			return fmt.Errorf("module: %w", err)
		}
		if _, err := schema.ParseImage(string(m.Image)); err != nil {
			return fmt.Errorf("module %s: %w", m.Name, err)
		}
	}
	for _, image := range d.Keep {
		if _, err := schema.ParseImage(string(image)); err != nil {
			return fmt.Errorf("keep: %w", err)
		}
	}
	return nil
}

func encodeState(s state) ([]byte, error) {
	inner, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(inner)
	b, err := json.Marshal(envelope{stateVersion, hex.EncodeToString(sum[:]), inner})
	if err == nil && len(b) > maxState {
		err = fmt.Errorf("%d bytes are more than the %d that fit", len(b), maxState)
	}
	return b, err
}

// save puts the state on the disk below dir. When it returns nil a power cut
// cannot take it back; when it fails the file is as before.
func (s state) save(dir string) error {
	b, err := encodeState(s)
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	if err := durable.Write(filepath.Join(dir, stateFile), b, 0o600); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}
