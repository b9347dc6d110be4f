package hub

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tidemark-edge/tidemark/internal/challenge"
	"github.com/tidemark-edge/tidemark/twin"
)

// admission decides who may connect and what for. It is the server's
// CustomClientAuthentication: it is asked on every connect, so that a device is
// admitted or revoked without disturbing any other. (A reload of the server's
// options would not cut the leafnode connection of a revoked device.)
type admission struct {
	mu        sync.Mutex
	server    *server.Server
	operators map[string]bool     // public NKeys that may do everything
	devices   map[string]string   // name of each admitted device, by public NKey
	conns     map[string][]uint64 // connections of each device's key
}

func newAdmission() *admission {
	return &admission{operators: map[string]bool{}, devices: map[string]string{}, conns: map[string][]uint64{}}
}

// devicePermissions are all that a device may do at the hub, seen from the
// device. twin.FleetMoved says the same. It answers requests below its own
// up.<device>.answer, see Call: a permission to answer wherever a request says
// does not hold over a leafnode link.
func devicePermissions(device string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: publishAllowed(device)},
		Subscribe: &server.SubjectPermission{Allow: subscribeAllowed(device)},
	}
}

func publishAllowed(device string) []string {
	return []string{
		twin.UpMessages(device), twin.UpTwin(device), twin.Up(device) + ".call.>", twin.Up(device) + ".answer.>",
	}
}

func subscribeAllowed(device string) []string {
	return []string{
		twin.FleetMoved, twin.Inbox(device, "") + ".>",
		twin.Prefix(device, "") + ".rpc.>", twin.Prefix(device, "*") + ".rpc.*",
	}
}

// serve tells which server asks.
func (a *admission) serve(s *server.Server) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server = s
}

// operator admits a key to everything.
func (a *admission) operator(public string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.operators[public] = true
}

// admit admits exactly these devices, public NKey by name, and ends the
// connections of every other key.
func (a *admission) admit(devices map[string]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fresh := make(map[string]string, len(devices))
	for device, public := range devices {
		fresh[public] = device
	}
	for public, device := range a.devices {
		if fresh[public] != device {
			a.cut(a.conns[public])
			delete(a.conns, public)
		}
	}
	a.devices = fresh
}

// cut ends connections. One that was let in a moment ago is not yet where the
// server finds it, so cut looks for a while.
func (a *admission) cut(ids []uint64) {
	s := a.server
	for _, id := range ids {
		go func() {
			for range 100 {
				if s.DisconnectClientByID(id) == nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}()
	}
}

// Check implements server.Authentication.
func (a *admission) Check(c server.ClientAuthentication) bool {
	if !challenge.Answered(c.GetOpts().Nkey, c.GetOpts().Sig, c.GetNonce()) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	public := c.GetOpts().Nkey
	if a.operators[public] && c.Kind() == server.CLIENT {
		return a.register(c, accountHub, &server.User{Username: "operator"})
	}
	device, ok := a.devices[public]
	if !ok {
		return false
	}
	a.conns[public] = append(slices.DeleteFunc(a.conns[public], a.gone), c.GetID())
	return a.register(c, accountFleet, &server.User{Username: device, Permissions: devicePermissions(device)})
}

// register lets a connection into an account.
func (a *admission) register(c server.ClientAuthentication, name string, user *server.User) bool {
	account, err := a.server.LookupAccount(name)
	if err != nil {
		return false
	}
	user.Account = account
	c.RegisterUser(user)
	return true
}

// gone reports whether a connection ended.
func (a *admission) gone(id uint64) bool {
	return a.server.GetClient(id) == nil && a.server.GetLeafNode(id) == nil
}

// admitted lists the devices, public NKey by name.
func (a *admission) admitted() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]string, len(a.devices))
	for public, device := range maps.All(a.devices) {
		out[device] = public
	}
	return out
}
