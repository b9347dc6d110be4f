package hub

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestReadingWithADevicesKey: somebody takes the wrong seed file. They are told
// which one to take, and nothing else is printed.
func TestReadingWithADevicesKey(t *testing.T) {
	g := newGadget(t, "hannover01")
	c := newCloud(t, g.entry())
	nc, err := Dial(c.hub.ClientURL(), filepath.Join(g.conf.StateDir, "identity.nk"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := OpenTwins(testContext(t), nc); err == nil || !strings.Contains(err.Error(), "operator.nk") {
		t.Errorf("%v, want a hint at operator.nk", err)
	}
}
