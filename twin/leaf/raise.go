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
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
	"github.com/tidemark-edge/tidemark/twin/leaf/ledger"
)

// Documents returns all twins of the device, its own first, then the modules'
// by name. One that is no longer declared says so, and has nothing but its
// versions: the hub keeps them too. The values are shared: read them, do not
// modify them.
func (l *Leaf) Documents() []twin.Document { return l.ledger.Documents() }

// Changed returns a channel that holds one value when a document changed since
// the last receive. It has one reader, the hub uplink.
func (l *Leaf) Changed() <-chan struct{} { return l.ledger.Changed() }

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
	news, err := l.ledger.Raise(module, desired, reported)
	if err != nil {
		return fmt.Errorf("raise versions of %s: %w", l.address(module), err)
	}
	return l.tell(news)
}

// recall lifts versions above those that modules have seen in their files, where
// they are below: the journal was removed, or is an older copy. Modules that run
// would else take what comes for old.
func (l *Leaf) recall() error {
	dirs, err := os.ReadDir(filepath.Join(l.config.RunDir, identity.ModulesDir))
	if err != nil {
		return err
	}
	var failed []error
	for _, dir := range dirs {
		data, ok := readDesired(filepath.Join(identity.ModuleDir(l.config.RunDir, dir.Name()), desiredFile))
		var seen twin.Section
		if !ok || schema.CheckName(dir.Name()) != nil || json.Unmarshal(data, &seen) != nil {
			continue
		}
		e, _ := l.ledger.Get(dir.Name())
		if seen.Version > e.Document.Properties.Desired.Version && seen.Version <= ledger.MaxVersion {
			_, err := l.ledger.Raise(dir.Name(), seen.Version, 0)
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
