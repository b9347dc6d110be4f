package leaf

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
	"github.com/tidemark-edge/tidemark/twin/leaf/ledger"
)

// desiredFile is where a module that knows no NATS finds properties.desired, in
// its run directory: a twin.Section as JSON.
const desiredFile = "desired.json"

// signalsDir is where, outside of what modules see, a file named like the module
// says that its desired.json changed and it has not been signalled since: an
// agent that dies in between does it when it starts again.
const signalsDir = "signals"

const (
	signalTimeout = time.Minute    // for one signal
	minSignal     = time.Second    // before a signal or a file is tried again
	maxSignal     = time.Minute    // the same, after many tries
	keepFree      = int64(1) << 20 // bytes of the run directory's tmpfs that are for seeds
)

// courier brings desired to modules as a file, and signals them. Its writes are
// made by who holds the leaf's declaring.
type courier struct {
	runDir string
	ledger *ledger.Ledger
	signal func(ctx context.Context, module, signal string) error // nil: nobody can be signalled
	lock   sync.Locker                                            // the leaf's declaring
	warn   func(error)
	kick   chan struct{}

	mu      sync.Mutex
	unsent  map[string]bool // modules to be signalled
	unfiled map[string]bool // modules whose file could not be written
	said    map[string]bool // what does not go, and was said: it is tried for as long as it does not
}

// newCourier finds out what an agent before this one left undone.
func (l *Leaf) newCourier() (*courier, error) {
	c := &courier{
		runDir: l.config.RunDir, ledger: l.ledger, signal: l.config.Signal, lock: &l.declaring, warn: l.warn,
		kick: make(chan struct{}, 1), unsent: map[string]bool{}, unfiled: map[string]bool{}, said: map[string]bool{},
	}
	if err := os.Mkdir(filepath.Join(c.runDir, signalsDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	for _, module := range l.ledger.Declared() {
		c.write(module)
	}
	left, err := os.ReadDir(filepath.Join(c.runDir, signalsDir))
	if err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	for _, mark := range left {
		c.call(mark.Name())
	}
	return c, nil
}

// write makes the file of a module say what the twin says. A module without a
// run directory gets its file with that.
func (c *courier) write(module string) {
	if module == "" {
		return
	}
	err := c.put(module)
	c.say("write "+desiredFile+" of module "+module, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.unfiled, module)
	} else if !c.unfiled[module] {
		c.unfiled[module] = true
		c.wake()
	}
}

// say tells a person once of what does not go.
func (c *courier) say(what string, err error) {
	c.mu.Lock()
	said := c.said[what]
	if err == nil {
		delete(c.said, what)
	} else {
		c.said[what] = true
	}
	c.mu.Unlock()
	if err != nil && !said {
		c.warn(fmt.Errorf("%s: %w", what, err))
	}
}

// put replaces a module's file if it is not as it should be.
func (c *courier) put(module string) error {
	e, ok := c.ledger.Get(module)
	if !ok || e.Document.Removed {
		return nil
	}
	dir := identity.ModuleDir(c.runDir, module)
	var owner unix.Stat_t
	if err := unix.Lstat(dir, &owner); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	data, err := json.Marshal(e.Document.Properties.Desired)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, desiredFile)
	was, known := readDesired(path)
	if known && bytes.Equal(was, data) && ownedBy(path, owner) {
		return nil
	}
	if err := hasRoom(c.runDir, int64(len(data))); err != nil {
		return err
	}
	if known && e.Signal != "" && c.signal != nil {
		if err := os.WriteFile(c.mark(module), nil, 0o600); err != nil {
			return err
		}
	}
	return c.place(path, module, data, owner)
}

// place puts a whole file where a module sees it, owned by whom the directory is.
func (c *courier) place(path, module string, data []byte, owner unix.Stat_t) error {
	temp := filepath.Join(c.runDir, identity.ModulesDir, "new."+module+"."+desiredFile) // where no module sees it
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := os.WriteFile(temp, data, 0o400)
	if err == nil {
		err = errors.Join(os.Lchown(temp, int(owner.Uid), int(owner.Gid)), os.Chmod(temp, 0o400))
	}
	failpoint.Reach("twins.filing")
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	return nil
}

// readDesired reads what a module's file says.
func readDesired(path string) (data []byte, ok bool) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil, false
	}
	data, err = durable.Read(path, twin.MaxDocument)
	return data, err == nil
}

func ownedBy(path string, owner unix.Stat_t) bool {
	var s unix.Stat_t
	return unix.Lstat(path, &s) == nil && s.Uid == owner.Uid && s.Gid == owner.Gid && s.Mode&0o777 == 0o400
}

// hasRoom reports a run directory in which so many bytes more would leave no
// room for seeds, without which no module is admitted.
func hasRoom(runDir string, more int64) error {
	var s unix.Statfs_t
	if err := unix.Statfs(runDir, &s); err != nil {
		return &fs.PathError{Op: "statfs", Path: runDir, Err: err}
	}
	if free := int64(s.Bavail) * int64(s.Bsize); free < more+keepFree {
		return fmt.Errorf("%s has %d bytes left, and %d are kept for seeds: %w", runDir, free, keepFree, unix.ENOSPC)
	}
	return nil
}

func (c *courier) mark(module string) string { return filepath.Join(c.runDir, signalsDir, module) }

// call has a module signalled, if its file changed.
func (c *courier) call(module string) {
	if module == "" || c.signal == nil {
		return
	}
	if _, err := os.Lstat(c.mark(module)); err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.unsent[module] {
		c.unsent[module] = true
		c.wake()
	}
}

func (c *courier) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// run does what takes long, and again what did not go, until ctx ends.
func (c *courier) run(ctx context.Context) {
	pause := time.Duration(0)
	for {
		var again <-chan time.Time
		if c.deliver(ctx) {
			pause = 0
		} else {
			pause = min(max(2*pause, minSignal), maxSignal)
			again = time.After(pause)
		}
		select {
		case <-ctx.Done():
			return
		case <-c.kick:
		case <-again:
		}
	}
}

// deliver tries once for all; done says that nothing is left.
func (c *courier) deliver(ctx context.Context) (done bool) {
	c.mu.Lock()
	unfiled, unsent := slices.Sorted(maps.Keys(c.unfiled)), slices.Sorted(maps.Keys(c.unsent))
	c.mu.Unlock()
	for _, module := range unfiled {
		c.lock.Lock()
		c.write(module)
		c.lock.Unlock()
		c.call(module)
	}
	for _, module := range unsent {
		if err := c.send(ctx, module); ctx.Err() == nil {
			c.say("signal module "+module, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.unfiled) == 0 && len(c.unsent) == 0
}

// send signals a module. One whose file changed meanwhile is signalled again.
func (c *courier) send(ctx context.Context, module string) error {
	e, ok := c.ledger.Get(module)
	if ok && !e.Document.Removed && e.Signal != "" {
		failpoint.Reach("twins.signal")
		limited, cancel := context.WithTimeout(ctx, signalTimeout)
		defer cancel()
		if err := c.signal(limited, module, e.Signal); err != nil {
			return err
		}
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	now, _ := c.ledger.Get(module)
	if now.Document.Properties.Desired.Version != e.Document.Properties.Desired.Version {
		return nil
	}
	if err := os.Remove(c.mark(module)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.unsent, module)
	return nil
}
