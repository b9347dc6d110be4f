package reconciler_test

import (
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/reconciler/contract"
	"github.com/tidemark-edge/tidemark/schema"
)

// The fake that everything here is tested with keeps the contract of the real
// thing.
func TestFakeRuntime(t *testing.T) {
	contract.Runtime(t, func(t *testing.T) contract.Fixture {
		m := newMachine(t)
		m.twins = true
		m.lives["fails"] = life{50 * time.Millisecond, 3}
		return contract.Fixture{
			Runtime:  m,
			Store:    m,
			Verifier: accept(t),
			Stays:    module("stays"),
			Pause:    func(id string) { m.set(func() { m.containers[id].State = schema.StatePaused }) },
			Fails:    module("fails", from("other"), func(m *schema.Module) { m.Restart.Policy = schema.RestartNever }),
		}
	})
}
