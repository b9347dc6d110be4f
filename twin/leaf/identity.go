package leaf

import (
	"context"
	"fmt"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
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
	dir = identity.ModuleDir(l.config.RunDir, module)
	if err := identity.Provide(l.config.RunDir, module, uid, gid); err != nil {
		return "", nil, fmt.Errorf("module identity: %w", err)
	}
	l.admit(module)
	l.courier.write(module)
	return dir, map[string]string{
		twin.EnvURL:      l.ClientURL(),
		twin.EnvIdentity: schema.Address(l.config.Device, module),
		twin.EnvCreds:    ContainerDir + "/" + identity.File,
	}, nil
}

// DeviceIdentity returns the public NKey of the device ("U…"), by which the hub
// knows it, and makes the key if there is none yet. It needs no running agent.
func DeviceIdentity(stateDir string) (public string, err error) {
	key, _, err := identity.DeviceKey(stateDir)
	if err != nil {
		return "", err
	}
	return key.PublicKey()
}
