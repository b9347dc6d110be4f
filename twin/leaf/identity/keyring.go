package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
)

// keyringFile is in the run directory, where modules do not see it.
const keyringFile = "identities.json"

// maxKeyring bounds that file, in bytes; it is no larger than the tmpfs.
const maxKeyring = 16 << 20

// keyring is what there is to know of modules' identities beside their seeds. It
// is for an agent that starts while modules run: a reboot ends them, and it.
type Keyring struct {
	path    string
	modules map[string]holder
}

// holder is a module.
type holder struct {
	Old   []OldKey     `json:"old,omitempty"`  // keys of before, oldest first
	Allow schema.Allow `json:"allow,omitzero"` // what its definition allowed it last
}

// OldKey is a key that is still good for a while.
type OldKey struct {
	Key   string        `json:"key"`   // public
	Until time.Duration `json:"until"` // uptime of the machine, in nanoseconds
}

// OpenKeyring reads the file. One that cannot be read is set aside: then old keys
// end early, and what definitions allow waits until they are declared again.
func OpenKeyring(runDir string, warn func(error)) (*Keyring, error) {
	k := &Keyring{path: filepath.Join(runDir, keyringFile), modules: map[string]holder{}}
	data, err := durable.Read(k.path, maxKeyring)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &k.modules)
	}
	if err == nil {
		return k, nil
	}
	k.modules = map[string]holder{}
	kept, aside := durable.SetAside(k.path)
	if aside != nil {
		return nil, fmt.Errorf("identities: %w", errors.Join(err, aside))
	}
	warn(fmt.Errorf("read %s: %w; kept as %s: keys that were replaced are not admitted any more", k.path, err, kept))
	return k, nil
}

// save writes the file.
func (k *Keyring) save() error {
	data, err := json.Marshal(k.modules)
	if err != nil {
		return err
	}
	return durable.Write(k.path, data, 0o600)
}

// Declare keeps what these modules are allowed, and nothing of others.
func (k *Keyring) Declare(modules []schema.Module) error {
	next := make(map[string]holder, len(modules))
	for _, m := range modules {
		next[m.Name] = holder{Old: k.modules[m.Name].Old, Allow: m.Identity.Allow}
	}
	if maps.EqualFunc(k.modules, next, holder.same) {
		return nil
	}
	k.modules = next
	return k.save()
}

// Retire keeps the key that a module has now, for when it has a new one, until
// this uptime. Only the newest are kept. It is called first: a key that is still
// the module's own does not end.
func (k *Keyring) Retire(module, public string, now, until time.Duration) error {
	h := k.modules[module]
	h.Old = append(alive(h.Old, now), OldKey{public, until})
	h.Old = h.Old[max(0, len(h.Old)-MaxOldKeys):]
	k.modules[module] = h
	return k.save()
}

// MaxOldKeys is how many keys of before a module may have at a time.
const MaxOldKeys = 4

// Old are the keys of before of a module that have not ended, oldest first.
func (k *Keyring) Old(module string, now time.Duration) []OldKey {
	return alive(k.modules[module].Old, now)
}

// Allowed is what the definition of a module allowed it last.
func (k *Keyring) Allowed(module string) schema.Allow { return k.modules[module].Allow }

// alive are the keys that have not ended.
func alive(keys []OldKey, now time.Duration) []OldKey {
	return slices.DeleteFunc(slices.Clone(keys), func(o OldKey) bool { return o.Until <= now })
}

func (h holder) same(other holder) bool {
	return slices.Equal(h.Old, other.Old) && slices.Equal(h.Allow.Publish, other.Allow.Publish) &&
		slices.Equal(h.Allow.Subscribe, other.Allow.Subscribe) && slices.Equal(h.Allow.Call, other.Allow.Call)
}
