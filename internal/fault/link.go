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
	outside string // the interface that stays outside
	address string // outside
	cut     bool
}

// plug connects a machine to the outside and tells it, by its /etc/hosts, where the
// targets are: for each host:port a device knows, the address that is meant. The
// link goes with the machine.
func plug(t testing.TB, m *Machine, targets map[string]string) *Link {
	t.Helper()
	l := &Link{Proxies: map[string]*Proxy{}, t: t}
	id := rand.Uint32()
	l.outside = fmt.Sprintf("tm%08x", id)
	inside := l.outside + "d"
	l.address = fmt.Sprintf("10.%d.%d.%d", 200+id>>16%50, id>>8&0xff, id&0xfc|1)
	run(t, "ip", "link", "add", l.outside, "type", "veth", "peer", "name", inside, "netns", fmt.Sprint(m.PID))
	run(t, "ip", "address", "add", l.address+"/30", "dev", l.outside)
	run(t, "ip", "link", "set", l.outside, "up")
	in := []string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", m.PID), "ip"}
	run(t, append(in, "link", "set", "lo", "up")...)
	run(t, append(in, "address", "add", fmt.Sprintf("10.%d.%d.%d/30", 200+id>>16%50, id>>8&0xff, id&0xfc|2), "dev", inside)...)
	run(t, append(in, "link", "set", inside, "up")...)
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

// unplug ends what listens outside. The interfaces have gone with the machine.
func (l *Link) unplug() {
	for _, p := range l.Proxies {
		p.Close()
	}
}

// Cut takes the link down: nothing comes through, and nobody is told.
func (l *Link) Cut() { l.t.Helper(); l.cut = true; run(l.t, "ip", "link", "set", l.outside, "down") }

// Restore takes the link up.
func (l *Link) Restore() {
	l.t.Helper()
	if l.cut {
		run(l.t, "ip", "link", "set", l.outside, "up")
	}
	l.cut = false
}
