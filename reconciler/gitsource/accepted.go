package gitsource

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
)

const (
	maxAcceptedBytes = 64 << 10 // the whole file
	maxEarlier       = 3        // revisions whose trees are kept besides the accepted one
)

// accepted is the memory of the package: what a tip must descend from. It
// lies outside the clone, so that a clone can be lost and made again without
// losing it.
type accepted struct {
	Revision schema.Revision   `json:"revision"`
	Earlier  []schema.Revision `json:"earlier,omitempty"` // newest first, at most maxEarlier
}

// advanced is a with r accepted on top.
func (a accepted) advanced(r schema.Revision) accepted {
	next := accepted{Revision: r}
	if !a.Revision.IsZero() {
		next.Earlier = append([]schema.Revision{a.Revision}, a.Earlier...)
	}
	if len(next.Earlier) > maxEarlier {
		next.Earlier = next.Earlier[:maxEarlier]
	}
	return next
}

func (a accepted) id() plumbing.Hash { return plumbing.NewHash(a.Revision.Commit) }

// envelope is the file: the state as it was written, and its SHA-256.
type envelope struct {
	Sum   string          `json:"sha256"`
	State json.RawMessage `json:"state"`
}

func (a accepted) write(path string) error {
	state, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	sum := sha256.Sum256(state)
	raw, err := json.Marshal(envelope{Sum: hex.EncodeToString(sum[:]), State: state})
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := durable.Write(path, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// readAccepted reads the state file. No file is fs.ErrNotExist; any other
// error means that the file cannot be trusted.
func readAccepted(path string) (accepted, error) {
	raw, err := durable.Read(path, maxAcceptedBytes)
	if err != nil {
		return accepted{}, err
	}
	return parseAccepted(raw)
}

func parseAccepted(raw []byte) (accepted, error) {
	var file envelope
	if err := json.Unmarshal(raw, &file); err != nil {
		return accepted{}, fmt.Errorf("read what was accepted: %w", err)
	}
	sum := sha256.Sum256(file.State)
	if file.Sum != hex.EncodeToString(sum[:]) {
		return accepted{}, errors.New("read what was accepted: the checksum does not match")
	}
	var a accepted
	if err := json.Unmarshal(file.State, &a); err != nil {
		return accepted{}, fmt.Errorf("read what was accepted: %w", err)
	}
	if !plumbing.IsHash(a.Revision.Commit) || len(a.Earlier) > maxEarlier {
		return accepted{}, fmt.Errorf("read what was accepted: %q is no commit", a.Revision.Commit)
	}
	return a, nil
}

// setAside is durable.SetAside for what may be gone already.
func setAside(path string) (aside string, err error) {
	aside, err = durable.SetAside(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return aside, err
}
