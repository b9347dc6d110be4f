package signing

import (
	"fmt"

	"github.com/tidemark-edge/tidemark/schema"
)

// RefusedError says that an image may not run here. Asking again gives the
// same answer until a person signs the image, or changes the device's rules.
type RefusedError struct {
	Image  schema.Image
	Rule   string // the rule that decided; empty where none matches
	Reason string // why, and what to do about it
}

func (e *RefusedError) Error() string {
	if e.Rule == "" {
		return fmt.Sprintf("verify %s: refused: %s", e.Image, e.Reason)
	}
	return fmt.Sprintf("verify %s: refused by rule %s: %s", e.Image, e.Rule, e.Reason)
}

// RegistryError says that the registry could not be asked, or not to the end:
// whether the image is signed is not known. It is worth trying again.
type RegistryError struct {
	Image schema.Image
	Err   error // what the network or the registry said
}

func (e *RegistryError) Error() string {
	return fmt.Sprintf("verify %s: ask registry %s for signatures: %v", e.Image, e.Image.Registry(), e.Err)
}

func (e *RegistryError) Unwrap() error { return e.Err }
