package leaf

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/tidemark-edge/tidemark/internal/challenge"
	"github.com/tidemark-edge/tidemark/twin"
)

// maxModuleConnections is how many connections one module may have at a time.
const maxModuleConnections = 8

// admission decides who may connect and what for. It is the server's
// CustomClientAuthentication: it is asked on every connect, so it follows the
// declared modules with no reload.
type admission struct {
	device string
	runDir string

	mu     sync.Mutex
	server *server.Server      // nil until the server runs
	grants map[string]*grant   // by public NKey
	keys   map[string]string   // public NKey of each admitted module, by name
	wanted map[string]bool     // declared modules, admitted or still without a key
	ports  map[int]string      // module whose door a connection came in by, by source port
	conns  map[string][]uint64 // connections of each module
}

// grant is what one key may do.
type grant struct {
	account     string
	module      string              // empty for the agent and the operator
	permissions *server.Permissions // nil permits everything in the account
}

func newAdmission(device, runDir string) *admission {
	return &admission{
		device: device, runDir: runDir,
		grants: map[string]*grant{}, keys: map[string]string{}, wanted: map[string]bool{},
		ports: map[int]string{}, conns: map[string][]uint64{},
	}
}

// modulePermissions are the scope of a module: its own prefix, and of that only
// what twin.Prefix lists. Everything else is refused, JetStream included.
func modulePermissions(device, module string) *server.Permissions {
	p := twin.Prefix(device, module)
	return &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{
			p + ".twin.get", p + ".twin.reported", p + ".out.>",
		}},
		Subscribe: &server.SubjectPermission{Allow: []string{
			p + ".twin.desired", p + ".in.>", p + ".rpc.>", twin.Inbox(device, module) + ".>",
		}},
		// One answer to each request that the module receives.
		Response: &server.ResponsePermission{MaxMsgs: 1, Expires: 2 * time.Minute},
	}
}

// serve tells which server asks.
func (a *admission) serve(s *server.Server) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server = s
}

// allow admits a key of our own to everything in an account.
func (a *admission) allow(key nkeys.KeyPair, account string) error {
	public, err := key.PublicKey()
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.grants[public] = &grant{account: account}
	return nil
}

// declare admits exactly these modules, each as soon as it has a key, and ends
// the connections of all others.
func (a *admission) declare(modules []string, warn func(error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.wanted)
	for _, module := range modules {
		a.wanted[module] = true
		key, err := readModuleKey(a.runDir, module)
		if err == nil {
			a.admit(module, key)
		} else if !errors.Is(err, errNoSeed) {
			warn(fmt.Errorf("admit module %s: %w", module, err))
		}
	}
	for _, module := range slices.Collect(maps.Keys(a.keys)) {
		if !a.wanted[module] {
			a.dismiss(module)
		}
	}
}

// key sets the key of a module, which takes effect when it is declared.
func (a *admission) key(module, public string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.wanted[module] {
		a.admit(module, public)
	}
}

func (a *admission) admit(module, public string) {
	if a.keys[module] == public {
		return
	}
	a.dismiss(module)
	a.keys[module] = public
	a.grants[public] = &grant{
		account: accountLocal, module: module,
		permissions: modulePermissions(a.device, module),
	}
}

// dismiss takes a module's key away and ends its connections.
func (a *admission) dismiss(module string) {
	delete(a.grants, a.keys[module])
	delete(a.keys, module)
	for _, id := range a.conns[module] {
		if a.server != nil {
			// Not from here: closing a connection may ask for what we hold.
			go a.server.DisconnectClientByID(id)
		}
	}
	delete(a.conns, module)
}

// cameBy notes that the connection from this source port came in by the door of
// a module, so that it can be nobody else.
func (a *admission) cameBy(port int, module string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ports[port] = module
}

// left forgets a source port.
func (a *admission) left(port int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.ports, port)
}

// Check implements server.Authentication.
func (a *admission) Check(c server.ClientAuthentication) bool {
	if c.Kind() != server.CLIENT || !challenge.Answered(c.GetOpts().Nkey, c.GetOpts().Sig, c.GetNonce()) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	g, ok := a.grants[c.GetOpts().Nkey]
	if !ok || a.server == nil {
		return false
	}
	if door, ok := a.door(c.RemoteAddress()); ok && door != g.module {
		return false
	}
	account, err := a.server.LookupAccount(g.account)
	if err != nil {
		return false
	}
	if g.module != "" && !a.count(g.module, c.GetID()) {
		return false
	}
	c.RegisterUser(&server.User{
		Username: userName(g), Account: account, Permissions: g.permissions,
	})
	return true
}

// door is the module whose door a connection came in by.
func (a *admission) door(from net.Addr) (module string, ok bool) {
	tcp, isTCP := from.(*net.TCPAddr)
	if !isTCP {
		return "", false
	}
	module, ok = a.ports[tcp.Port]
	return module, ok
}

// count adds a connection to a module's, unless it has too many already.
func (a *admission) count(module string, id uint64) bool {
	open := slices.DeleteFunc(a.conns[module], func(id uint64) bool {
		return a.server.GetClient(id) == nil
	})
	if !slices.Contains(open, id) { // a client may say CONNECT twice
		if len(open) >= maxModuleConnections {
			a.conns[module] = open
			return false
		}
		open = append(open, id)
	}
	a.conns[module] = open
	return true
}

func userName(g *grant) string {
	if g.module != "" {
		return g.module
	}
	return "agent"
}
