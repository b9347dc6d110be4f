package harness

import (
	"os/exec"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// The parts that other tests rely on start, answer and end.
func TestContainerdAnswers(t *testing.T) {
	for _, version := range ContainerdVersions {
		t.Run(version, func(t *testing.T) {
			d := Containerd(t, version)
			d.Restart()
			out, err := exec.Command(Tool(t, "ctr-"+version), "--address", d.Address, "version").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "Server:") {
				t.Fatalf("ctr version: %v\n%s", err, out)
			}
			t.Logf("%s", out)
		})
	}
}

func TestRegistriesTakeAnImage(t *testing.T) {
	for name, addr := range map[string]string{"distribution": Registry(t), "referrers": ReferrersRegistry(t)} {
		t.Run(name, func(t *testing.T) {
			image := PushFiles(t, addr, "app", map[string][]byte{"main": []byte("#!")}, v1.Config{})
			if image.Registry() != addr {
				t.Fatalf("pushed to %s, got %s", addr, image)
			}
		})
	}
}
