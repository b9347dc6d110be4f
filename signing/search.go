package signing

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing/internal/evidence"
)

// search looks for one signature of image that holds under rule.
type search struct {
	rule  *rule
	image schema.Image

	found   evidence.Material
	signer  string   // the key that holds; empty until one does
	reasons []string // why the others do not
	absent  bool     // the registry has neither a signature nor the image
}

// run asks the registry for bundles, then for classic signatures, and when there
// are none for the image itself: a mistyped digest has no signature either. What the
// registry cannot tell about one format does not keep it from the other; its
// error counts only if nothing is found.
func (s *search) run(ctx context.Context, r *registry) error {
	c, err := r.open(s.image)
	if err != nil {
		return err
	}
	before := len(s.reasons)
	bundles := c.bounds.told(c.bundles(ctx, s.try))
	if s.signer != "" || ctx.Err() != nil {
		return bundles
	}
	classic := c.bounds.told(c.classic(ctx, s.try))
	if bundles != nil && classic != nil && bundles.Error() != classic.Error() {
		return fmt.Errorf("%w; %w", bundles, classic)
	}
	if bundles == nil && classic == nil && len(s.reasons) == before {
		s.absent = c.absent(ctx)
	}
	return cmp.Or(bundles, classic)
}

// try checks one candidate; err is why it could not be had in full.
func (s *search) try(m evidence.Material, err error) bool {
	var signer string
	if err == nil {
		signer, err = s.rule.check(m, s.image)
	}
	if err != nil {
		if reason := clip(m.Format + ": " + err.Error()); !slices.Contains(s.reasons, reason) {
			s.reasons = append(s.reasons, reason)
		}
		return false
	}
	s.found, s.signer = m, signer
	return true
}

// clip bounds a text that may quote what a registry served.
func clip(s string) string {
	const limit = 300
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

// maxReasons is how many reasons an error lists.
const maxReasons = 4

// summary says why nothing holds, and what to do.
func (s *search) summary() string {
	todo := "sign it with one of the rule's keys (cosign sign --key …)"
	if s.absent {
		todo = "the registry does not have this image: push it, or correct the digest"
	}
	switch {
	case len(s.reasons) == 0 && s.absent:
		return todo
	case len(s.reasons) == 0:
		return "the registry has no signature for it: " + todo
	}
	list := s.reasons
	more := ""
	if len(list) > maxReasons {
		more = fmt.Sprintf("; and %d more", len(list)-maxReasons)
		list = list[:maxReasons]
	}
	return "no signature holds: " + strings.Join(list, "; ") + more + ": " + todo
}
