package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
)

// fleetFile holds, in the state directory, whom the hub admits, so that it
// admits them also when it starts while the fleet repository is out of reach.
const fleetFile = "fleet.json"

// maxFleetFile bounds that file, in bytes: 100,000 devices and more.
const maxFleetFile = 32 << 20

// fleet is what the fleet repository says, as far as the hub needs it.
type fleet struct {
	Revision schema.Revision   `json:"revision,omitzero"`
	Devices  map[string]string `json:"devices"` // public NKey by device name
}

// admitting is the fleet after a commit that defines these devices.
//
//   - A device that does not render keeps the identity that it had: a typo in a
//     definition is no reason to cut off the device, whose own agent keeps what
//     it runs, too.
//   - A device that is no longer defined, or names no identity, is revoked.
//   - An identity stands for one device. Where two name the same, neither gets
//     it anew; one that had it keeps it.
//
// The errors say what is wrong with single devices.
func (f fleet) admitting(r schema.Revision, entries []schema.Entry) (fleet, []error) {
	next := fleet{Revision: r, Devices: map[string]string{}}
	var wrong []error
	claims := map[string][]string{}
	for _, e := range entries {
		public := e.Identity
		if e.Err != nil {
			wrong = append(wrong, fmt.Errorf("device %s keeps the identity it had: %w", e.Name, e.Err))
			public = f.Devices[e.Name]
		}
		if public == "" || schema.CheckName(e.Name) != nil {
			continue
		}
		if !nkeys.IsValidPublicUserKey(public) {
			wrong = append(wrong, fmt.Errorf("device %s keeps the identity it had: %q is not the public NKey of a user (U…)", e.Name, public))
			if public = f.Devices[e.Name]; public == "" {
				continue
			}
		}
		if next.Devices[e.Name] == "" { // a device that two directories define comes twice
			next.Devices[e.Name] = public
			claims[public] = append(claims[public], e.Name)
		}
	}
	for public, names := range claims {
		if len(names) < 2 {
			continue
		}
		wrong = append(wrong, fmt.Errorf("devices %v name the same identity %s: it is admitted only for the one that had it", names, public))
		for _, name := range names {
			if f.Devices[name] != public {
				delete(next.Devices, name)
			}
		}
	}
	return next, wrong
}

// sealed is the file's form.
type sealed struct {
	Sum   string          `json:"sha256"` // of Fleet, hexadecimal
	Fleet json.RawMessage `json:"fleet"`
}

func (f fleet) write(path string) error {
	inner, err := json.Marshal(f)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(inner)
	data, err := json.Marshal(sealed{hex.EncodeToString(sum[:]), inner})
	if err != nil {
		return err
	}
	if err := durable.Write(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("remember the admitted devices: %w", err)
	}
	return nil
}

// readFleet reads the file. One that is broken is set aside: broken says so, and
// nobody is admitted until the fleet repository was read.
func readFleet(path string) (f fleet, broken, err error) {
	data, err := durable.Read(path, maxFleetFile)
	if errors.Is(err, fs.ErrNotExist) {
		return fleet{}, nil, nil
	}
	if err == nil {
		if f, err = parseFleet(data); err == nil {
			return f, nil, nil
		}
	}
	kept, aside := durable.SetAside(path)
	if aside != nil {
		return fleet{}, nil, fmt.Errorf("read %s: %w", path, errors.Join(err, aside))
	}
	return fleet{}, fmt.Errorf("read %s: %w: kept as %s; no device is admitted before the fleet repository is read", path, err, kept), nil
}

func parseFleet(data []byte) (fleet, error) {
	var s sealed
	if err := json.Unmarshal(data, &s); err != nil {
		return fleet{}, err
	}
	sum := sha256.Sum256(s.Fleet)
	if hex.EncodeToString(sum[:]) != s.Sum {
		return fleet{}, errors.New("the checksum does not match")
	}
	var f fleet
	if err := json.Unmarshal(s.Fleet, &f); err != nil {
		return fleet{}, err
	}
	for name, public := range f.Devices {
		if err := schema.CheckName(name); err != nil {
			return fleet{}, err
		}
		if !nkeys.IsValidPublicUserKey(public) {
			return fleet{}, fmt.Errorf("device %s: %q is not the public NKey of a user", name, public)
		}
	}
	return f, nil
}
