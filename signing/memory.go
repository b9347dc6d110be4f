package signing

import (
	"sync"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing/internal/evidence"
)

// maxRemembered bounds the proofs in memory; a device runs some dozens.
const maxRemembered = 4096

// memory holds the proofs that this process has made, so that a pass over many
// modules does not repeat the arithmetic. It is no weaker than the evidence: the
// rules of a Verifier do not change, and a proof holds only as long as the file
// that it was made from is untouched.
type memory struct {
	mu     sync.Mutex
	proofs map[schema.Image]remembered
}

type remembered struct {
	proof Verified
	stamp evidence.Stamp
}

// recall returns the proof for image if it was made from the file with stamp.
func (m *memory) recall(image schema.Image, stamp evidence.Stamp) (Verified, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.proofs[image]
	return r.proof, ok && r.stamp == stamp && stamp != evidence.Stamp{}
}

// keep remembers a proof that was made from the file with stamp.
func (m *memory) keep(proof Verified, stamp evidence.Stamp) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.proofs == nil || len(m.proofs) >= maxRemembered {
		m.proofs = map[schema.Image]remembered{}
	}
	m.proofs[proof.Image()] = remembered{proof: proof, stamp: stamp}
}
