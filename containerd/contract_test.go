package containerd_test

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/reconciler/contract"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing/signingtest"
)

// What the reconciler is tested with keeps the same contract: see its fake.
func TestContract(t *testing.T) {
	t.Parallel()
	for _, version := range harness.ContainerdVersions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, version)
			other := w.push(t, "other", map[string]string{"other": "other"}, v1.Config{Entrypoint: []string{"/main"}})
			contract.Runtime(t, func(t *testing.T) contract.Fixture {
				s := w.stage(t)
				fails := s.module("fails", "exit", "3")
				fails.Image, fails.Restart.Policy = other, schema.RestartNever
				return contract.Fixture{
					Runtime:  s.Runtime,
					Store:    s.Store,
					Verifier: signingtest.Accept(t, s.image, other),
					Stays:    s.module("stays", "wait"),
					Pause:    func(id string) { s.ctr("task", "pause", id) },
					Fails:    fails,
				}
			})
		})
	}
}
