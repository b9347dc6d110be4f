// Package quickstart holds the README to its word.
package quickstart

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

// TestReadmeWorksWhenPasted runs the README's session as a person would: in the
// shell that `make shell` opens, line by line, stopping at the first error.
func TestReadmeWorksWhenPasted(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(harness.Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(readme), "<!-- quickstart -->\n```sh\n")
	session, _, ends := strings.Cut(after, "\n```\n")
	if !ok || !ends {
		t.Fatal("the README has no session marked as the quickstart")
	}
	cmd := exec.Command("make", "-s", "-C", harness.Root(), "shell")
	cmd.Stdin = strings.NewReader(session)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"healthy", "signed by alice@example.com", "twin of /devices/hannover01/modules/sensor", "temperature:",
		"pin the digest", "exit code 3",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the session does not show %q", want)
		}
	}
	if t.Failed() || testing.Verbose() {
		t.Logf("%s", out)
	}
}
