package leaf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// maxFloor bounds versions that Raise sets: far above any that come about, and
// far below the last.
const maxFloor = 1 << 52

// Documents returns all twins of the device, its own first, then the modules'
// by name. One that is no longer declared says so, and has nothing but its
// versions: the hub keeps them too. The values are shared: read them, do not
// modify them.
func (l *Leaf) Documents() []twin.Document { return l.store.documents() }

// Changed returns a channel that holds one value when a document changed since
// the last receive. It has one reader, the hub uplink.
func (l *Leaf) Changed() <-chan struct{} { return l.store.changed }

// Raise lifts the versions of a twin above those that the hub holds, where they
// are below, so that a device that lost its state goes on above and the hub
// takes what it sends. module is empty for the device.
func (l *Leaf) Raise(_ context.Context, module string, desired, reported uint64) error {
	if module != "" {
		if err := schema.CheckName(module); err != nil {
			return fmt.Errorf("raise versions: %w", err)
		}
	}
	l.declaring.Lock()
	defer l.declaring.Unlock()
	news, err := l.store.raise(module, desired, reported)
	if err != nil {
		return fmt.Errorf("raise versions of %s: %w", l.address(module), err)
	}
	return l.tell(news)
}

// raise returns the entry if it is declared and its desired version rose.
func (s *store) raise(module string, desired, reported uint64) (news []entry, err error) {
	if desired > maxFloor || reported > maxFloor {
		return nil, fmt.Errorf("%d and %d are not versions that a twin can have reached", desired, reported)
	}
	errs := s.commit(func(get func(string) (entry, bool)) ([]entry, error) {
		e, ok := get(module)
		if !ok {
			e.Document.Removed = module != "" // its versions wait for when it is declared
		}
		p := &e.Document.Properties
		raised := raise(&p.Desired.Version, desired)
		if raised && !e.Document.Removed {
			news = append(news, e)
		}
		if !raise(&p.Reported.Version, reported) && !raised {
			return nil, nil
		}
		return []entry{e}, nil
	})
	return news, errs[0]
}

// recall lifts versions above those that modules have seen in their files, where
// they are below: the journal was removed, or is an older copy. Modules that run
// would else take what comes for old.
func (s *store) recall(runDir string) error {
	dirs, err := os.ReadDir(filepath.Join(runDir, modulesDir))
	if err != nil {
		return err
	}
	var failed []error
	for _, dir := range dirs {
		data, ok := readDesired(filepath.Join(moduleDir(runDir, dir.Name()), desiredFile))
		var seen twin.Section
		if !ok || schema.CheckName(dir.Name()) != nil || json.Unmarshal(data, &seen) != nil {
			continue
		}
		e, _ := s.get(dir.Name())
		if seen.Version > e.Document.Properties.Desired.Version && seen.Version <= maxFloor {
			_, err := s.raise(dir.Name(), seen.Version, 0)
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func raise(version *uint64, floor uint64) bool {
	if *version >= floor {
		return false
	}
	*version = floor + 1
	return true
}
