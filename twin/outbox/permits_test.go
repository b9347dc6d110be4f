package outbox

import (
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/schema"
)

// TestPermitsIsWhatRouteRefuses: a revision is refused for routes before it is
// taken over, with the arithmetic.
func TestPermitsIsWhatRouteRefuses(t *testing.T) {
	big := schema.Route{Name: "big", From: "*/*", To: schema.ToHub, MaxBytes: 200 << 20}
	if err := Permits([]schema.Route{big}, 0); err != nil {
		t.Errorf("within the default: %v", err)
	}
	if err := Permits(nil, 4<<20); err != nil {
		t.Errorf("the default route: %v", err)
	}
	second := big
	second.Name = "second"
	err := Permits([]schema.Route{big, second}, 0)
	if want := "routes: maxBytes: the routes ask for big 200.0 MiB + second 200.0 MiB = 400.0 MiB: of 256.0 MiB that the device has (outbox.maxBytes)"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	broken := big
	broken.Where = "body.("
	if err := Permits([]schema.Route{broken}, 0); err == nil || !strings.HasPrefix(err.Error(), `routes: route "big": `) {
		t.Errorf("a condition that does not compile: %v", err)
	}
}
