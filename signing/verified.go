package signing

import "github.com/tidemark-edge/tidemark/schema"

// Verified is the proof that a trusted signer vouched for an image. Only a
// Verifier makes one; the zero value proves nothing and every runtime refuses
// it.
type Verified struct{ evidence schema.Evidence }

// Image is the image that was verified; empty in the zero value.
func (v Verified) Image() schema.Image { return v.evidence.Image }

// Evidence says who signed and which rule accepted it.
func (v Verified) Evidence() schema.Evidence { return v.evidence }
