// Package admission decides who may connect to the leaf and what each may do there:
// keys, and scopes. It is asked on every connect, so it follows the declared modules
// with no reload, and no network.
package admission

import (
	"maps"
	"net"
	"reflect"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/internal/challenge"
	"github.com/tidemark-edge/tidemark/schema"
)

// The accounts; see package leaf.
const (
	Local  = "LOCAL"
	Uplink = "UPLINK"
	System = "$SYS"
)

// MaxConnections is how many connections one module may have at a time.
const MaxConnections = 8

// Admission is the server's CustomClientAuthentication. Its methods may be called at
// the same time.
type Admission struct {
	device string
	grants schema.Grants        // what definitions may allow
	uptime func() time.Duration // of this boot: what keys are counted down by

	mu      sync.Mutex
	server  *server.Server     // nil until the server runs
	keys    map[string]*grant  // by public NKey
	tenants map[string]*tenant // declared modules, by name
	ports   map[int]string     // module whose door a connection came in by, by source port
}

// grant is what one key may do.
type grant struct {
	account string
	tenant  *tenant       // nil for the agent and the operator, who may do everything in the account
	until   time.Duration // uptime at which the key ends; 0 is never
}

// tenant is a declared module.
type tenant struct {
	name        string
	permissions *server.Permissions
	conns       map[uint64]string // the key of each of its connections
}

// New admits nobody yet. grants is what the device's owner lets definitions allow, and
// uptime how long the machine has run, which keys are counted down by.
func New(device string, grants schema.Grants, uptime func() time.Duration) *Admission {
	return &Admission{
		device: device, grants: grants, uptime: uptime,
		keys: map[string]*grant{}, tenants: map[string]*tenant{}, ports: map[int]string{},
	}
}

// Serve tells which server asks from now on. Connections to one before it are none.
func (a *Admission) Serve(s *server.Server) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server = s
	for _, t := range a.tenants {
		clear(t.conns)
	}
}

// Allow admits a key of our own to everything in an account.
func (a *Admission) Allow(key nkeys.KeyPair, account string) error {
	public, err := key.PublicKey()
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys[public] = &grant{account: account}
	return nil
}

// Declare admits exactly these modules, with what the device's owner grants of what
// they are allowed, each as soon as it has a key. The connections of all others end,
// and those of a module that may do other things now, which then comes back with
// those.
func (a *Admission) Declare(modules []schema.Module) {
	scopes := make(map[string]*server.Permissions, len(modules))
	for _, m := range modules {
		scopes[m.Name] = scope(a.device, m.Name, granted(m.Identity.Allow, a.grants))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, t := range a.tenants {
		if _, ok := scopes[name]; !ok {
			a.dismiss(t)
		}
	}
	for name, permissions := range scopes {
		t := a.tenants[name]
		switch {
		case t == nil:
			a.tenants[name] = &tenant{name: name, permissions: permissions, conns: map[uint64]string{}}
		case !reflect.DeepEqual(t.permissions, permissions):
			t.permissions = permissions
			a.cut(t, "")
		}
	}
}

// Admit has a declared module admitted by these public keys only, each until the uptime
// that it maps to; 0 is for ever. Any other ends, with its connections.
func (a *Admission) Admit(module string, keys map[string]time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tenants[module]
	if t == nil {
		return
	}
	a.revoke(t, func(public string, _ *grant) bool { _, ok := keys[public]; return !ok })
	for public, until := range keys {
		a.keys[public] = &grant{account: Local, tenant: t, until: until}
	}
}

// Recall ends a module's connections, so that its clients come back.
func (a *Admission) Recall(module string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.tenants[module]; t != nil {
		a.cut(t, "")
	}
}

// Expire ends the keys whose time is over, and what is connected with them.
func (a *Admission) Expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.uptime()
	for _, t := range a.tenants {
		a.revoke(t, func(_ string, g *grant) bool { return g.until > 0 && g.until <= now })
	}
}

// dismiss takes a module's keys away and ends its connections.
func (a *Admission) dismiss(t *tenant) {
	a.revoke(t, func(string, *grant) bool { return true })
	delete(a.tenants, t.name)
}

// revoke takes those keys of a module away that end says, and ends the
// Connections with them.
func (a *Admission) revoke(t *tenant, end func(public string, g *grant) bool) {
	for public, g := range a.keys {
		if g.tenant == t && end(public, g) {
			delete(a.keys, public)
			a.cut(t, public)
		}
	}
}

// cut ends a module's connections with this key, or with any when it is empty.
func (a *Admission) cut(t *tenant, public string) {
	for id, with := range t.conns {
		if public != "" && with != public {
			continue
		}
		delete(t.conns, id)
		if a.server != nil {
			// Not from here: closing a connection may ask for what we hold.
			go a.server.DisconnectClientByID(id)
		}
	}
}

// Connections counts the connections that a module has, by the key of each.
func (a *Admission) Connections(module string) map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	with := map[string]int{}
	if t := a.tenants[module]; t != nil && a.server != nil {
		a.sweep(t)
		for _, public := range t.conns {
			with[public]++
		}
	}
	return with
}

// CameBy notes that the connection from this source port came in by the door of
// a module, so that it can be nobody else.
func (a *Admission) CameBy(port int, module string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ports[port] = module
}

// Left forgets a source port.
func (a *Admission) Left(port int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.ports, port)
}

// Check implements server.Authentication.
func (a *Admission) Check(c server.ClientAuthentication) bool {
	if c.Kind() != server.CLIENT || !challenge.Answered(c.GetOpts().Nkey, c.GetOpts().Sig, c.GetNonce()) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	public := c.GetOpts().Nkey
	g, ok := a.keys[public]
	if !ok || a.server == nil || g.until > 0 && g.until <= a.uptime() {
		return false
	}
	user := &server.User{Username: "agent"}
	if g.tenant != nil {
		user.Username, user.Permissions = g.tenant.name, g.tenant.permissions
	}
	if door, ok := a.door(c.RemoteAddress()); ok && (g.tenant == nil || door != g.tenant.name) {
		return false
	}
	var err error
	if user.Account, err = a.server.LookupAccount(g.account); err != nil {
		return false
	}
	if g.tenant != nil && !a.count(g.tenant, c.GetID(), public) {
		return false
	}
	c.RegisterUser(user)
	return true
}

// door is the module whose door a connection came in by.
func (a *Admission) door(from net.Addr) (module string, ok bool) {
	tcp, isTCP := from.(*net.TCPAddr)
	if !isTCP {
		return "", false
	}
	module, ok = a.ports[tcp.Port]
	return module, ok
}

// count adds a connection to a module's, unless it has too many already.
func (a *Admission) count(t *tenant, id uint64, public string) bool {
	a.sweep(t)
	if _, again := t.conns[id]; !again && len(t.conns) >= MaxConnections { // a client may say CONNECT twice
		return false
	}
	t.conns[id] = public
	return true
}

// sweep forgets connections that are no more.
func (a *Admission) sweep(t *tenant) {
	maps.DeleteFunc(t.conns, func(id uint64, _ string) bool { return a.server.GetClient(id) == nil })
}
