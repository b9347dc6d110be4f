//go:build bench

package bench

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
)

// cable is the way to a network of its own, over a router. Cut, the router passes
// nothing on and tells nobody: the interfaces at both ends stay up, no connection
// is reset, and what is sent is lost, as when a mobile network has no signal.
type cable struct {
	t       *testing.T
	name    string // of the router's namespace; that of the far end has an f behind it
	address string // of the far end
}

func newCable(t *testing.T) *cable {
	t.Helper()
	id := rand.Uint32()
	subnet := fmt.Sprintf("10.%d.%d", 200+id>>16%50, id>>8&0xff)
	c := &cable{t: t, name: fmt.Sprintf("tm%08x", id), address: subnet + ".6"}
	far := c.name + "f"
	for _, namespace := range []string{c.name, far} {
		c.ip("netns", "add", namespace)
		t.Cleanup(func() { c.ip("netns", "delete", namespace) })
		c.ip("-n", namespace, "link", "set", "lo", "up")
	}
	c.ip("link", "add", c.name, "type", "veth", "peer", "name", "near", "netns", c.name)
	c.ip("-n", c.name, "link", "add", "far", "type", "veth", "peer", "name", "cloud", "netns", far)
	c.ip("address", "add", subnet+".1/30", "dev", c.name)
	c.ip("-n", c.name, "address", "add", subnet+".2/30", "dev", "near")
	c.ip("-n", c.name, "address", "add", subnet+".5/30", "dev", "far")
	c.ip("-n", far, "address", "add", c.address+"/30", "dev", "cloud")
	c.ip("link", "set", c.name, "up")
	c.ip("-n", c.name, "link", "set", "near", "up")
	c.ip("-n", c.name, "link", "set", "far", "up")
	c.ip("-n", far, "link", "set", "cloud", "up")
	c.ip("route", "add", subnet+".4/30", "via", subnet+".2")
	c.ip("-n", far, "route", "add", "default", "via", subnet+".5")
	c.mend()
	return c
}

func (c *cable) cut()  { c.t.Helper(); c.forward("0") }
func (c *cable) mend() { c.t.Helper(); c.forward("1") }

func (c *cable) forward(whether string) {
	c.t.Helper()
	c.ip("netns", "exec", c.name, "sh", "-c", "echo "+whether+" > /proc/sys/net/ipv4/ip_forward")
}

func (c *cable) ip(args ...string) {
	c.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		c.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// command is one that runs at the far end; here, where there is no cable.
func (c *cable) command(name string, args ...string) *exec.Cmd {
	if c == nil {
		return exec.Command(name, args...)
	}
	return exec.Command("ip", append([]string{"netns", "exec", c.name + "f", name}, args...)...)
}
