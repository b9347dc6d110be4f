package hub

import (
	"slices"
	"testing"
)

// TestOneRevokedDeviceDoesNotDrownOthers: its complaint is said once in a
// minute, however often it comes back, and the bound is left for the others.
func TestOneRevokedDeviceDoesNotDrownOthers(t *testing.T) {
	var said []string
	l := newServerLog(func(err error) { said = append(said, err.Error()) })
	for n := range 10 * complaints {
		l.Errorf("%s - lid:%d - %s - Nkey %q", "127.0.0.1:46052", n, "authentication error", "UREVOKED")
	}
	l.Errorf("%s - lid:%d - %s - Nkey %q", "[::1]:46053", 7, "authentication error", "UOTHER")
	want := []string{
		`hub server: 127.0.0.1:46052 - lid:0 - authentication error - Nkey "UREVOKED"`,
		`hub server: [::1]:46053 - lid:7 - authentication error - Nkey "UOTHER"`,
	}
	if !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
	for n := range 10 * complaints {
		l.Warnf("complaint %d", n)
	}
	if len(said) != complaints {
		t.Errorf("%d were said, want %d", len(said), complaints)
	}
}
