package hub

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/internal/durable"
)

// operatorFile holds, in the state directory, the seed with which a person may
// do everything.
const operatorFile = "operator.nk"

// operatorKey reads the operator's seed, or makes one, and returns the public
// key. A file that is not a seed is an error: somebody put it there.
func operatorKey(path string) (public string, err error) {
	data, err := durable.Read(path, 1024)
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
	if err := durable.Write(path, append(seed, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("operator seed: %w", err)
	}
	return key.PublicKey()
}
