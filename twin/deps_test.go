package twin

import (
	"os/exec"
	"strings"
	"testing"
)

// Modules link this package, so what it links is theirs to carry.
func TestLinksNothingHeavy(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, path := range strings.Fields(string(out)) {
		if !strings.Contains(strings.SplitN(path, "/", 2)[0], ".") {
			continue // the standard library
		}
		allowed := false
		for _, prefix := range []string{
			"github.com/tidemark-edge/tidemark/twin", "github.com/nats-io/nats.go", "github.com/nats-io/nkeys", "github.com/nats-io/nuid",
			"github.com/klauspost/compress", "golang.org/x/crypto", "golang.org/x/sys", "golang.org/x/text", // what nats.go needs
		} {
			allowed = allowed || path == prefix || strings.HasPrefix(path, prefix+"/")
		}
		if !allowed || strings.HasPrefix(path, "github.com/tidemark-edge/tidemark/twin/") {
			t.Errorf("links %s", path)
		}
	}
}
