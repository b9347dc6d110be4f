package leaf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin/leaf/admission"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
)

const (
	// DefaultGrace is how long the key of before is still good, where nobody says.
	DefaultGrace = time.Hour
	// MaxGrace bounds how long it can be.
	MaxGrace = 7 * 24 * time.Hour
	// expireEvery is how often keys are looked at whose time may be over. The
	// machine may have slept, which a timer does not notice.
	expireEvery = 5 * time.Second
)

// ModuleIdentity is what there is to know of a module's identity. Nothing of it
// is secret.
type ModuleIdentity struct {
	Module      string    `json:"module"`
	Address     string    `json:"address"`       // /devices/<device>/modules/<module>
	PublicKey   string    `json:"publicKey"`     // NKey, "U…"; empty while it has none
	Since       time.Time `json:"since"`         // when that was made, by the device's clock; zero while it has none
	Connections int       `json:"connections"`   // that it has now
	Old         []OldKey  `json:"old,omitempty"` // keys of before that are still good, oldest first
}

// OldKey is a key of before a rotation.
type OldKey struct {
	PublicKey string    `json:"publicKey"`
	Until     time.Time `json:"until"` // by the device's clock of now; what counts is the time that the machine runs
}

// Rotate gives a declared module a new key: the seed in its run directory is
// replaced, at once and whole, and its connections end once, so that its clients
// come back. A client that reads the seed each time it connects (twin.Connect)
// takes the new one, and its process need not start again. One that read it once
// goes on with the key of before for as long as grace, counted while the machine
// runs; then that key ends, and what is connected with it. It is counted on over
// a restart of the agent; a reboot makes new keys for all.
//
// A grace of 0 ends the key at once, for one that has leaked. Up to 4 keys of
// before are kept, then the oldest ends.
func (l *Leaf) Rotate(_ context.Context, module string, grace time.Duration) (ModuleIdentity, error) {
	if grace < 0 || grace > MaxGrace {
		return ModuleIdentity{}, fmt.Errorf("rotate identity of %s: grace %v: want 0 to %v", module, grace, MaxGrace)
	}
	l.declaring.Lock()
	defer l.declaring.Unlock()
	if err := l.rotate(module, grace); err != nil {
		return ModuleIdentity{}, fmt.Errorf("rotate identity of %s: %w", module, err)
	}
	return l.identityOf(module)
}

func (l *Leaf) rotate(module string, grace time.Duration) error {
	if !l.ledger.Declares(module) {
		return errors.New("no such module is declared")
	}
	before, err := identity.ModuleKey(l.config.RunDir, module)
	if errors.Is(err, identity.ErrNoSeed) {
		return errors.New("it has none yet: it gets one when it is started")
	}
	if err != nil {
		return err
	}
	now := l.config.clock.Uptime()
	if err := l.keyring.Retire(module, before, now, now+grace); err != nil {
		return err
	}
	if err := identity.Replace(l.config.RunDir, module); err != nil {
		return err
	}
	l.admit(module)
	l.admission.Recall(module)
	return nil
}

// admitAll admits these modules with what the device's owner grants of what they
// are allowed, each with the keys that it has. The caller holds declaring, or is
// the only one.
func (l *Leaf) admitAll(modules []schema.Module) {
	if err := l.keyring.Declare(modules); err != nil {
		l.warn(fmt.Errorf("identities: %w; after a restart of the agent modules wait for what they are allowed until definitions are read", err))
	}
	l.admission.Declare(modules)
	for _, m := range modules {
		l.admit(m.Name)
	}
}

// admit admits a declared module with the keys that it has.
func (l *Leaf) admit(module string) {
	public, err := identity.ModuleKey(l.config.RunDir, module)
	if err != nil {
		if !errors.Is(err, identity.ErrNoSeed) {
			l.warn(fmt.Errorf("admit module %s: %w", module, err))
		}
		return
	}
	keys := map[string]time.Duration{}
	for _, old := range l.keyring.Old(module, l.config.clock.Uptime()) {
		keys[old.Key] = old.Until
	}
	keys[public] = 0
	l.admission.Admit(module, keys)
}

// admitBefore admits the modules that were declared when the last agent ended.
func (l *Leaf) admitBefore() {
	var modules []schema.Module
	for _, name := range l.ledger.Declared() {
		modules = append(modules, schema.Module{Name: name, Identity: schema.Identity{Allow: l.keyring.Allowed(name)}})
	}
	l.admitAll(modules)
}

// expireKeys ends keys when their time is over, until ctx ends.
func (l *Leaf) expireKeys(ctx context.Context) {
	tick := time.NewTicker(l.config.expireEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.admission.Expire()
		}
	}
}

// Identities lists the identities of all declared modules, by name.
func (l *Leaf) Identities() ([]ModuleIdentity, error) {
	l.declaring.Lock()
	defer l.declaring.Unlock()
	var all []ModuleIdentity
	for _, module := range l.ledger.Declared() {
		one, err := l.identityOf(module)
		if err != nil {
			return nil, fmt.Errorf("identities: %w", err)
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b ModuleIdentity) int { return cmp.Compare(a.Module, b.Module) })
	return all, nil
}

// identityOf describes one. The caller holds declaring.
func (l *Leaf) identityOf(module string) (ModuleIdentity, error) {
	i := ModuleIdentity{
		Module: module, Address: schema.Address(l.config.Device, module),
	}
	for _, n := range l.admission.Connections(module) {
		i.Connections += n
	}
	uptime, now := l.config.clock.Uptime(), time.Now()
	for _, old := range l.keyring.Old(module, uptime) {
		i.Old = append(i.Old, OldKey{old.Key, now.Add(old.Until - uptime).UTC().Truncate(time.Second)})
	}
	public, err := identity.ModuleKey(l.config.RunDir, module)
	if errors.Is(err, identity.ErrNoSeed) {
		return i, nil
	}
	if err != nil {
		return i, err
	}
	i.PublicKey = public
	since, err := identity.Since(l.config.RunDir, module)
	if err == nil {
		i.Since = since.UTC().Truncate(time.Second)
	}
	return i, err
}

// Permits says whether the device's owner lets the identity of every module do what
// its definition allows it. What the owner does not grant is not given to a module in
// any case; this is how a person learns of it before anything changes.
func Permits(desired schema.Desired, grants schema.Grants) error {
	return admission.Permits(desired, grants)
}
