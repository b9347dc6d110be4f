package fault

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"testing"
)

// Link is a cable between a machine and the world: a pair of veth interfaces. The
// machine has no other way out, and no default route.
type Link struct {
	Proxies map[string]*Proxy // by the host:port that the device knows

	t       testing.TB
	machine *Machine
	outside string // the interface that stays outside
	address string // outside
	inside  string // the machine's address
	bare    bool   // the machine's interface is down, and has no address yet
	cut     bool
}

// plug connects a machine to the outside and tells it, by its /etc/hosts, where the
// targets are: for each host:port a device knows, the address that is meant. The
// link goes with the machine. A bare one waits for Restore: until then no interface
// of the machine is up but the loopback.
func plug(t testing.TB, m *Machine, targets map[string]string, bare bool) *Link {
	t.Helper()
	id := rand.Uint32()
	l := &Link{Proxies: map[string]*Proxy{}, t: t, machine: m, bare: bare, outside: fmt.Sprintf("tm%08x", id)}
	address := func(host uint32) string { return fmt.Sprintf("10.%d.%d.%d", 200+id>>16%50, id>>8&0xff, id&0xfc|host) }
	l.address, l.inside = address(1), address(2)
	run(t, "ip", "link", "add", l.outside, "type", "veth", "peer", "name", l.outside+"d", "netns", fmt.Sprint(m.PID))
	run(t, "ip", "address", "add", l.address+"/30", "dev", l.outside)
	run(t, "ip", "link", "set", l.outside, "up")
	l.configure("link", "set", "lo", "up")
	if !bare {
		l.raise()
	}
	hosts := "127.0.0.1 localhost\n"
	for name, target := range targets {
		host, port, err := net.SplitHostPort(name)
		if err != nil {
			t.Fatal(err)
		}
		l.Proxies[name] = NewProxy(t, net.JoinHostPort(l.address, port), target)
		hosts += l.address + " " + host + "\n"
	}
	if err := os.WriteFile(m.hosts, []byte(hosts), 0o644); err != nil {
		t.Fatal(err)
	}
	return l
}

// configure calls ip inside the machine.
func (l *Link) configure(args ...string) {
	l.t.Helper()
	run(l.t, append([]string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", l.machine.PID), "ip"}, args...)...)
}

// raise gives the machine its address.
func (l *Link) raise() {
	l.t.Helper()
	l.configure("address", "add", l.inside+"/30", "dev", l.outside+"d")
	l.configure("link", "set", l.outside+"d", "up")
}

// unplug ends what listens outside. The interfaces have gone with the machine.
func (l *Link) unplug() {
	for _, p := range l.Proxies {
		p.Close()
	}
}

// Registry is what the device reaches the registry by.
func (l *Link) Registry() *Proxy { return l.Proxies[registryHost] }

// Git is what the device reaches the fleet repository by.
func (l *Link) Git() *Proxy { return l.Proxies[gitHost] }

// Hub is what the device reaches the hub by; nil without one.
func (l *Link) Hub() *Proxy { return l.Proxies[hubHost] }

// Cut takes the link down: nothing comes through, and nobody is told.
func (l *Link) Cut() { l.t.Helper(); l.cut = true; run(l.t, "ip", "link", "set", l.outside, "down") }

// Restore takes the link up.
func (l *Link) Restore() {
	l.t.Helper()
	if l.cut {
		run(l.t, "ip", "link", "set", l.outside, "up")
	}
	if l.bare {
		l.raise()
	}
	l.cut, l.bare = false, false
}
