package leaf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// ContainerDir is where a module finds its run directory, read-only.
const ContainerDir = "/run/tidemark"

// Identity makes the run directory of a module, to be bind-mounted read-only at
// ContainerDir, and returns the environment that the module is started with.
// The directory holds identity.nk and, while the module is declared, desired.json,
// mode 0400, owned by uid and gid, the ones that the module runs as, and nothing
// else. A directory that is there is kept, so that a
// module that runs goes on with the seed it has. The module is admitted while
// it is declared.
func (l *Leaf) Identity(_ context.Context, module string, uid, gid uint32) (dir string, env map[string]string, err error) {
	if err := schema.CheckName(module); err != nil {
		return "", nil, fmt.Errorf("module identity: %w", err)
	}
	l.declaring.Lock()
	defer l.declaring.Unlock()
	dir = moduleDir(l.config.RunDir, module)
	if _, err := readModuleKey(l.config.RunDir, module); err != nil {
		if !errors.Is(err, errNoSeed) && !errors.Is(err, errBadSeed) {
			return "", nil, fmt.Errorf("module identity: %w", err)
		}
		if err := makeModuleDir(dir); err != nil {
			return "", nil, fmt.Errorf("module identity: %w", err)
		}
	}
	if err := own(dir, uid, gid); err != nil {
		return "", nil, fmt.Errorf("module identity: %w", err)
	}
	l.admit(module)
	l.courier.write(module)
	return dir, map[string]string{
		twin.EnvURL:      l.ClientURL(),
		twin.EnvIdentity: schema.Address(l.config.Device, module),
		twin.EnvCreds:    ContainerDir + "/" + identityFile,
	}, nil
}

func moduleDir(runDir, module string) string { return filepath.Join(runDir, modulesDir, module) }

// readModuleKey returns the public key of a module's seed.
func readModuleKey(runDir, module string) (string, error) {
	key, err := readSeed(filepath.Join(moduleDir(runDir, module), identityFile))
	if err != nil {
		return "", err
	}
	defer key.Wipe()
	return key.PublicKey()
}

// makeModuleDir makes a module's directory with a new seed in it. It appears
// whole or not at all.
func makeModuleDir(dir string) error {
	temp := filepath.Join(filepath.Dir(dir), "new."+filepath.Base(dir)) // no module's name has a dot
	if err := errors.Join(os.RemoveAll(temp), os.RemoveAll(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(temp, 0o700); err != nil {
		return err
	}
	key, err := writeSeed(filepath.Join(temp, identityFile), 0o400)
	if err != nil {
		return err
	}
	key.Wipe()
	return os.Rename(temp, dir)
}

// own gives a module's directory to the user that the module runs as, and to
// nobody else. The file is the last to change, so that the module never sees it
// as another's.
func own(dir string, uid, gid uint32) error {
	seed := filepath.Join(dir, identityFile)
	return errors.Join(
		os.Lchown(dir, int(uid), int(gid)), os.Chmod(dir, 0o500),
		os.Lchown(seed, int(uid), int(gid)), os.Chmod(seed, 0o400))
}

// forget removes the run directories of all modules but these.
func forget(runDir string, keep map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(runDir, modulesDir))
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if err := os.RemoveAll(moduleDir(runDir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
