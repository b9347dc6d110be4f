package signing

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing/internal/evidence"
)

// DefaultTimeout is how long a registry may take to show an image's signatures.
const DefaultTimeout = time.Minute

// Verifier decides which images may run. Its methods may be called
// concurrently.
type Verifier struct {
	// Timeout bounds the conversation with a registry about one image; New sets
	// DefaultTimeout. Set it before the first Verify.
	Timeout time.Duration
	// Broken is told of stored evidence that could not be used and was set aside.
	// Verify goes on without it. Nil ignores it. Set it before the first Verify.
	Broken func(error)

	rules      []*rule
	registries map[string]*registry // those that the configuration names
	transport  *http.Transport      // for all but those with their own certificates
	store      *evidence.Store
	memory     memory
}

// New loads the keys of rules and the certificates of registries, which are
// keyed by host[:port], and makes evidenceDir where it is missing. An error
// names the rule or registry and the file. No rules is a valid policy: it
// refuses every image.
func New(rules []schema.ImageRule, registries map[string]schema.Registry, evidenceDir string) (*Verifier, error) {
	v := &Verifier{Timeout: DefaultTimeout, registries: map[string]*registry{}, transport: newTransport()}
	for _, r := range rules {
		loaded, err := newRule(r)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(v.rules, func(o *rule) bool { return o.name == r.Name }) {
			return nil, fmt.Errorf("image rule %s: two rules have this name: evidence could not tell them apart", r.Name)
		}
		v.rules = append(v.rules, loaded)
	}
	for host, config := range registries {
		r, err := newRegistry(host, config, v.transport)
		if err != nil {
			return nil, err
		}
		v.registries[host] = r
	}
	var err error
	if v.store, err = evidence.Open(evidenceDir); err != nil {
		return nil, err
	}
	return v, nil
}

// Verify decides whether image may run here. The error is a *RefusedError when
// it may not, and a *RegistryError when that could not be found out now; any
// other error is the device's own, such as a full disk.
func (v *Verifier) Verify(ctx context.Context, image schema.Image) (Verified, error) {
	if _, err := schema.ParseImage(string(image)); err != nil {
		return Verified{}, &RefusedError{Image: image, Reason: err.Error()}
	}
	stamp := v.store.Stamp(image.Digest())
	if proof, ok := v.memory.recall(image, stamp); ok {
		return proof, nil
	}
	r := v.ruleFor(image)
	if r == nil {
		return Verified{}, &RefusedError{Image: image, Reason: v.noRule(image)}
	}
	kept, signer, stored := v.stored(r, image)
	if stored == nil {
		proof := accepted(image, r, signer, kept)
		v.memory.keep(proof, stamp)
		return proof, nil
	}
	found, signer, err := v.ask(ctx, r, image, stored)
	if err != nil {
		return Verified{}, err
	}
	found.Verified = time.Now().UTC()
	if err := v.store.Save(image.Digest(), found); err != nil {
		return Verified{}, fmt.Errorf("verify %s: %w", image, err)
	}
	return accepted(image, r, signer, found), nil
}

// Prune deletes the evidence of all images but keep.
func (v *Verifier) Prune(keep []schema.Image) error {
	digests := make(map[string]bool, len(keep))
	for _, image := range keep {
		digests[image.Digest()] = true
	}
	return v.store.Prune(digests)
}

// accepted is the only place where a proof is made.
func accepted(image schema.Image, r *rule, signer string, m evidence.Material) Verified {
	return Verified{schema.Evidence{Image: image, Signer: signer, Rule: r.name, Format: m.Format, Verified: m.Verified}}
}

// ruleFor is the rule that decides about image, or nil.
func (v *Verifier) ruleFor(image schema.Image) *rule {
	for _, r := range v.rules {
		if r.matches(image.Repository()) {
			return r
		}
	}
	return nil
}

// noRule explains that nothing matches.
func (v *Verifier) noRule(image schema.Image) string {
	if len(v.rules) == 0 {
		return "this device has no image rules: add one to images in its configuration, with the public key of whoever signs " + image.Repository()
	}
	var have []string
	for _, r := range v.rules {
		have = append(have, fmt.Sprintf("%s (%s)", r.name, strings.Join(r.match, "/")))
	}
	return fmt.Sprintf("no image rule matches %s; this device has %s: add a rule to images in its configuration, or widen one",
		image.Repository(), strings.Join(have, ", "))
}

// errNotStored says that nothing was kept for an image.
var errNotStored = errors.New("nothing stored")

// stored verifies what was kept for image against the present keys. The error
// says why that does not decide.
func (v *Verifier) stored(r *rule, image schema.Image) (evidence.Material, string, error) {
	m, err := v.store.Load(image.Digest())
	if errors.Is(err, fs.ErrNotExist) {
		return evidence.Material{}, "", errNotStored
	}
	if err != nil {
		if v.Broken != nil {
			v.Broken(fmt.Errorf("verify %s: %w", image, err))
		}
		return evidence.Material{}, "", err
	}
	signer, err := r.check(m, image)
	if err != nil {
		return evidence.Material{}, "", fmt.Errorf("the signature that is stored on the device does not hold any more: %w", err)
	}
	return m, signer, nil
}

// ask tries the registry's signatures until one holds. stored is why the
// device's own evidence did not do.
func (v *Verifier) ask(ctx context.Context, r *rule, image schema.Image, stored error) (evidence.Material, string, error) {
	ctx, cancel := context.WithTimeout(ctx, v.Timeout)
	defer cancel()
	s := search{rule: r, image: image}
	if !errors.Is(stored, errNotStored) {
		s.reasons = append(s.reasons, stored.Error())
	}
	err := s.run(ctx, v.registry(image.Registry()))
	switch {
	case s.signer != "":
		return s.found, s.signer, nil
	case err != nil && len(s.reasons) > 0:
		return s.found, "", &RegistryError{Image: image, Err: fmt.Errorf("%w (so far: %s)", err, s.summary())}
	case err != nil:
		return s.found, "", &RegistryError{Image: image, Err: err}
	}
	return s.found, "", &RefusedError{Image: image, Rule: r.name, Reason: s.summary()}
}

// registry is the registry at host: configured, or by default.
func (v *Verifier) registry(host string) *registry {
	if r, ok := v.registries[host]; ok {
		return r
	}
	r, _ := newRegistry(host, schema.Registry{}, v.transport) // only a CAFile can fail
	return r
}
