package leaf

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

// identityFile is the name of every file that holds a seed.
const identityFile = "identity.nk"

// errNoSeed says that there is no seed file; errBadSeed that there is one and
// it cannot be used.
var (
	errNoSeed  = errors.New("no seed")
	errBadSeed = errors.New("not a user's NKey seed")
)

// readSeed reads a user's NKey from a file. A symbolic link is not followed.
func readSeed(path string) (nkeys.KeyPair, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %s: %w", path, errNoSeed)
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
		return nil, fmt.Errorf("read %s: %w", path, errBadSeed)
	}
	public, err := key.PublicKey()
	if err != nil || !nkeys.IsValidPublicUserKey(public) {
		return nil, fmt.Errorf("read %s: %w", path, errBadSeed)
	}
	return key, nil
}

// writeSeed makes a new NKey and writes its seed, durably, to a new file with
// this mode.
func writeSeed(path string, mode fs.FileMode) (nkeys.KeyPair, error) {
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

// DeviceIdentity returns the public NKey of the device ("U…"), by which the hub
// knows it, and makes the key if there is none yet. It needs no running agent.
func DeviceIdentity(stateDir string) (public string, err error) {
	key, _, err := deviceKey(stateDir)
	if err != nil {
		return "", err
	}
	return key.PublicKey()
}

// deviceKey reads or makes the key of the device. A seed file that cannot be
// used is set aside: the hub then refuses the device until the fleet repository
// names the new key, but the device goes on.
func deviceKey(stateDir string) (key nkeys.KeyPair, warning, err error) {
	path := filepath.Join(stateDir, identityFile)
	key, err = readSeed(path)
	if err == nil {
		return key, nil, os.Chmod(path, 0o600)
	}
	if errors.Is(err, errBadSeed) {
		kept, aside := durable.SetAside(path)
		if aside != nil {
			return nil, nil, aside
		}
		warning = fmt.Errorf("device identity: %w; kept as %s, and a new one made, which the fleet repository has to name", err, kept)
	} else if !errors.Is(err, errNoSeed) {
		return nil, nil, fmt.Errorf("device identity: %w", err)
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("device identity: %w", err)
	}
	temp := fmt.Sprintf("%s.%d.new", path, os.Getpid())
	defer os.Remove(temp)
	if _, err = writeSeed(temp, 0o600); err != nil {
		return nil, nil, fmt.Errorf("device identity: %w", err)
	}
	// Whoever comes first decides: a command may run while the agent starts.
	if err := os.Link(temp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, nil, fmt.Errorf("device identity: %w", err)
	}
	if err := durable.SyncDir(stateDir); err != nil {
		return nil, nil, fmt.Errorf("device identity: %w", err)
	}
	key, err = readSeed(path)
	return key, warning, err
}
