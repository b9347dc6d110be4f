// Package identity keeps seeds: the device's on its disk, those of modules in memory
// only, each in the directory that its module sees; and what is known of keys that
// were replaced. It sees to it that nobody else can read or exchange them.
package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nkeys"
	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// File is the name of every file that holds a seed.
const File = "identity.nk"

// ErrNoSeed says that there is no seed file; ErrBadSeed that there is one and
// it cannot be used.
var (
	ErrNoSeed  = errors.New("no seed")
	ErrBadSeed = errors.New("not a user's NKey seed")
)

// ReadSeed reads a user's NKey from a file. A symbolic link is not followed.
func ReadSeed(path string) (nkeys.KeyPair, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %s: %w", path, ErrNoSeed)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, 1024))
	if err != nil {
		return nil, err
	}
	key, err := nkeys.FromSeed(bytes.TrimSpace(data)) // copies it
	clear(data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, ErrBadSeed)
	}
	public, err := key.PublicKey()
	if err != nil || !nkeys.IsValidPublicUserKey(public) {
		return nil, fmt.Errorf("read %s: %w", path, ErrBadSeed)
	}
	return key, nil
}

// WriteSeed makes a new NKey and writes its seed, durably, to a new file with
// this mode.
func WriteSeed(path string, mode fs.FileMode) (nkeys.KeyPair, error) {
	key, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	seed, err := key.Seed()
	if err != nil {
		return nil, err
	}
	line := append(bytes.Clone(seed), '\n') // the key keeps its own
	defer clear(line)
	return key, durable.Create(path, line, mode)
}

// DeviceKey reads or makes the key of the device. A seed file that cannot be
// used is set aside: the hub then refuses the device until the fleet repository
// names the new key, but the device goes on.
func DeviceKey(stateDir string) (key nkeys.KeyPair, warning, err error) {
	path := filepath.Join(stateDir, File)
	key, err = ReadSeed(path)
	if err == nil {
		return key, nil, os.Chmod(path, 0o600)
	}
	if errors.Is(err, ErrBadSeed) {
		kept, aside := durable.SetAside(path)
		if aside != nil {
			return nil, nil, aside
		}
		warning = fmt.Errorf("device identity: %w; kept as %s, and a new one made, which the fleet repository has to name", err, kept)
	} else if !errors.Is(err, ErrNoSeed) {
		return nil, nil, fmt.Errorf("device identity: %w", err)
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("device identity: %w", err)
	}
	temp := fmt.Sprintf("%s.%d.new", path, os.Getpid())
	defer os.Remove(temp)
	if _, err = WriteSeed(temp, 0o600); err != nil {
		return nil, nil, fmt.Errorf("device identity: %w", err)
	}
	// Whoever comes first decides: a command may run while the agent starts.
	if err := os.Link(temp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, nil, fmt.Errorf("device identity: %w", err)
	}
	if err := durable.SyncDir(stateDir); err != nil {
		return nil, nil, fmt.Errorf("device identity: %w", err)
	}
	key, err = ReadSeed(path)
	return key, warning, err
}
