package uplink

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// state is what a lane remembers across restarts. Where the hub has the lane is
// not in it: the hub is asked.
type state struct {
	Life  life  `json:"life"`
	Old   *life `json:"old,omitempty"`   // the one before, in which there was something: the hub may not know all of it
	Began bool  `json:"began,omitempty"` // something of Life may have been sent

	// Behind is the epoch in which the hub had the lane when Life began to be sent.
	// Where it has the lane in one that is neither that nor known otherwise, another
	// life of the queue came after this one: the disk is an older one again.
	Behind string `json:"behind,omitempty"`
}

const (
	stateVersion = 1
	maxState     = 256 << 10 // bytes of a state file
	maxSequence  = 1<<53 - 1 // what a batch can carry
)

func (s state) encode() ([]byte, error) { return durable.Seal(stateVersion, s) }

// decodeState reads what encode wrote, and nothing that makes no sense.
func decodeState(data []byte) (state, error) {
	content, err := durable.Unseal(stateVersion, data)
	if err != nil {
		return state{}, err
	}
	var s state
	if err := json.Unmarshal(content, &s); err != nil {
		return state{}, err
	}
	if err := s.Life.check(); err != nil {
		return state{}, err
	}
	if s.Old != nil {
		if err := s.Old.check(); err != nil {
			return state{}, fmt.Errorf("old: %w", err)
		}
	}
	return s, nil
}

func (l *life) check() error {
	switch {
	case l.Epoch == "":
		return errors.New("no epoch")
	case max(l.Base, l.Known, l.Live, l.Late) > maxSequence:
		return errors.New("a sequence is too large")
	case !l.Noted.ordered(0, maxSequence):
		return errors.New("noted ranges overlap")
	case !l.Deferred.ordered(0, maxSequence):
		return errors.New("deferred ranges overlap")
	}
	for _, n := range l.Noted {
		if n.Reason == "" {
			return errors.New("a noted range has no reason")
		}
	}
	return nil
}

// disk keeps the state files of lanes.
type disk interface {
	// read returns a state. known is false when there is none; an error that is a
	// *brokenError says that there was one, and that it is out of the way.
	read(lane string) (s state, known bool, err error)
	// write replaces it. When it fails, the old one is there, or the new one.
	write(lane string, s state) error
}

// brokenError says that a state cannot be used.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

// directory is a disk: <lane>.json in it.
type directory string

func (d directory) path(lane string) string { return filepath.Join(string(d), lane+".json") }

func (d directory) read(lane string) (state, bool, error) {
	path := d.path(lane)
	data, err := durable.Read(path, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, false, nil
	}
	if err != nil && !errors.Is(err, durable.ErrTooLarge) && !errors.Is(err, syscall.EIO) {
		return state{}, false, fmt.Errorf("read state: %w", err)
	}
	var s state
	if err == nil {
		s, err = decodeState(data)
	}
	if err == nil {
		return s, true, nil
	}
	aside, asideErr := durable.SetAside(path)
	if asideErr != nil {
		return state{}, false, fmt.Errorf("read state %s: %w; set it aside: %w", path, err, asideErr)
	}
	return state{}, false, &brokenError{fmt.Errorf("read state %s: %w; it is set aside as %s", path, err, filepath.Base(aside))}
}

func (d directory) write(lane string, s state) error {
	data, err := s.encode()
	if err == nil {
		err = os.MkdirAll(string(d), 0o700)
	}
	if err == nil {
		err = durable.Write(d.path(lane), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}
