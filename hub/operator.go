package hub

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nkeys"
)

// operatorFile holds, in the state directory, the seed with which a person may
// do everything.
const operatorFile = "operator.nk"

// operatorKey reads the operator's seed, or makes one, and returns the public
// key. A file that is not a seed is an error: somebody put it there.
func operatorKey(path string) (public string, err error) {
	data, err := readBounded(path, 1024)
	if errors.Is(err, fs.ErrNotExist) {
		return makeOperatorKey(path)
	}
	if err != nil {
		return "", fmt.Errorf("operator seed: %w", err)
	}
	key, err := nkeys.FromSeed(bytes.TrimSpace(data))
	if err != nil {
		return "", fmt.Errorf("operator seed %s: %w: remove the file, and a new one is made", path, err)
	}
	if public, err = key.PublicKey(); err != nil || !nkeys.IsValidPublicUserKey(public) {
		return "", fmt.Errorf("operator seed %s: not a user's: remove the file, and a new one is made", path)
	}
	return public, os.Chmod(path, 0o600)
}

func makeOperatorKey(path string) (public string, err error) {
	key, err := nkeys.CreateUser()
	if err != nil {
		return "", fmt.Errorf("operator seed: %w", err)
	}
	seed, err := key.Seed()
	if err != nil {
		return "", fmt.Errorf("operator seed: %w", err)
	}
	if err := replaceFile(path, append(seed, '\n')); err != nil {
		return "", fmt.Errorf("operator seed: %w", err)
	}
	return key.PublicKey()
}

// replaceFile writes path, readable by the owner only, so that after a power
// cut it is the old file or the new one.
func replaceFile(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
