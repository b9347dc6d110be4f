package leaf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nats.go"
	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/admission"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
)

// What is in the run directory:
//
//	agent.json                     where the agent listens; for commands of a person
//	operator.nk                    the seed that those commands use, new at each start
//	modules/, identities.json      see package identity
const (
	agentFile    = "agent.json"
	operatorFile = "operator.nk"
)

// agentInfo is the content of agentFile.
type agentInfo struct {
	URL              string `json:"url"`              // of the leaf, for clients on the device
	Device           string `json:"device"`           // the device's name
	OperatorSeedFile string `json:"operatorSeedFile"` // readable by the agent's own user only
	StateDir         string `json:"stateDir"`         // the agent's state directory, absolute
}

// writeOperator makes the key of a person's commands, new at each start.
func (l *Leaf) writeOperator() error {
	seedFile := filepath.Join(l.config.RunDir, operatorFile)
	if err := os.Remove(seedFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := identity.WriteSeed(seedFile, 0o600)
	if err != nil {
		return fmt.Errorf("operator's key: %w", err)
	}
	if err := l.admission.Allow(key, admission.Local); err != nil {
		return err
	}
	stateDir, err := filepath.Abs(l.config.StateDir)
	if err != nil {
		return err
	}
	info, err := json.Marshal(agentInfo{l.ClientURL(), l.config.Device, seedFile, stateDir})
	if err != nil {
		return err
	}
	return durable.Write(filepath.Join(l.config.RunDir, agentFile), info, 0o644)
}

// Dial connects a person's command to the agent of this device, with every
// permission inside it. The caller closes the connection.
func Dial(runDir string) (conn *nats.Conn, device string, err error) {
	info, err := readInfo(runDir)
	if err != nil {
		return nil, "", err
	}
	if err := schema.CheckName(info.Device); err != nil {
		return nil, "", fmt.Errorf("read %s: device: %w", filepath.Join(runDir, agentFile), err)
	}
	key, err := identity.ReadSeed(info.OperatorSeedFile)
	if errors.Is(err, fs.ErrPermission) {
		return nil, "", fmt.Errorf("%w: only the user that the agent runs as may, try sudo", err)
	}
	if err != nil {
		return nil, "", err
	}
	public, err := key.PublicKey()
	if err != nil {
		return nil, "", err
	}
	conn, err = nats.Connect(info.URL, nats.Name("operator"), nats.Nkey(public, key.Sign),
		nats.CustomInboxPrefix(twin.Inbox(info.Device, "")))
	if err != nil {
		return nil, "", fmt.Errorf("connect to the agent at %s: %w: does it run?", info.URL, err)
	}
	return conn, info.Device, nil
}

// StateDir is the state directory of the agent that has, or had since the boot,
// this run directory.
func StateDir(runDir string) (string, error) {
	info, err := readInfo(runDir)
	if err == nil && !filepath.IsAbs(info.StateDir) {
		err = fmt.Errorf("read %s: no state directory in it: an agent of another version wrote it", filepath.Join(runDir, agentFile))
	}
	return info.StateDir, err
}

func readInfo(runDir string) (info agentInfo, err error) {
	path := filepath.Join(runDir, agentFile)
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return info, fmt.Errorf("no %s: does the agent run, and is this its run directory?", path)
	}
	if err != nil {
		return info, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, 64<<10))
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(data, &info); err != nil {
		return info, fmt.Errorf("read %s: %w", path, err)
	}
	return info, nil
}
