package signing

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing/internal/evidence"
)

const (
	// maxCandidates bounds the signatures of each format that are tried for one
	// image.
	maxCandidates = 64

	bundleTypePrefix    = "application/vnd.dev.sigstore.bundle"
	emptyConfigType     = "application/vnd.oci.empty.v1+json"
	predicateAnnotation = "dev.sigstore.bundle.predicateType"
	signatureAnnotation = "dev.cosignproject.cosign/signature"
)

// conversation asks one registry for the signatures of one image.
type conversation struct {
	puller *remote.Puller
	bounds *bounds // that puller keeps to
	image  schema.Image
	ref    name.Digest
}

// visit is called with each signature that a registry has; it returns true when
// it has seen enough.
type visit func(m evidence.Material, err error) (enough bool)

// bundles visits the Sigstore bundles that refer to the image. An error is the
// registry's; what is wrong with one bundle goes to visit.
func (c *conversation) bundles(ctx context.Context, visit visit) error {
	index, err := remote.Referrers(c.ref, remote.Reuse(c.puller), remote.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("list referrers: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		visit(evidence.Material{Format: evidence.FormatBundle}, fmt.Errorf("list of referrers: %w", err))
		return nil
	}
	for _, d := range bundleReferrers(manifest.Manifests) {
		raw, err := c.bundle(ctx, d.Digest)
		if errors.Is(err, errNoBundle) {
			continue
		}
		var odd *contentError
		if err != nil && !errors.As(err, &odd) {
			return fmt.Errorf("referrer %s: %w", d.Digest, err)
		}
		if visit(evidence.Material{Format: evidence.FormatBundle, Bundle: raw}, err) {
			return nil
		}
	}
	return nil
}

// bundleReferrers picks the referrers that can be bundles, those that say they
// are signatures first. Some registries give the type of the configuration in
// place of the artifact's, so an empty configuration may be one, too.
func bundleReferrers(all []v1.Descriptor) []v1.Descriptor {
	rank := func(d v1.Descriptor) int {
		predicate := d.Annotations[predicateAnnotation]
		switch {
		case predicate == signPredicate:
			return 0
		case strings.HasPrefix(d.ArtifactType, bundleTypePrefix) && predicate == "":
			return 1
		case predicate == "" && (d.ArtifactType == "" || d.ArtifactType == emptyConfigType):
			return 2
		case strings.HasPrefix(d.ArtifactType, bundleTypePrefix) || predicate != "":
			return 3 // says that it is something else; tried so that the refusal can tell
		}
		return 4
	}
	var out []v1.Descriptor
	for _, d := range all {
		if rank(d) < 4 {
			out = append(out, d)
		}
	}
	slices.SortStableFunc(out, func(a, b v1.Descriptor) int { return rank(a) - rank(b) })
	return out[:min(len(out), maxCandidates)]
}

// errNoBundle says that a referrer is something else.
var errNoBundle = errors.New("not a bundle")

// contentError says that the registry delivered what was asked for, and that
// this is no good.
type contentError struct{ error }

func (e *contentError) Unwrap() error { return e.error }

// bundle fetches the bundle in the referrer's manifest.
func (c *conversation) bundle(ctx context.Context, digest v1.Hash) ([]byte, error) {
	desc, err := c.puller.Get(ctx, c.ref.Context().Digest(digest.String()))
	if err != nil {
		return nil, notFoundIsContent(err)
	}
	var m v1.Manifest
	if err := json.Unmarshal(desc.Manifest, &m); err != nil {
		return nil, &contentError{fmt.Errorf("manifest: %w", err)}
	}
	for _, l := range m.Layers {
		if strings.HasPrefix(string(l.MediaType), bundleTypePrefix) {
			return c.blob(ctx, l)
		}
	}
	return nil, errNoBundle
}

// classic visits the signatures under the tag sha256-<hex>.sig.
func (c *conversation) classic(ctx context.Context, visit visit) error {
	tag := c.ref.Context().Tag(strings.Replace(c.image.Digest(), ":", "-", 1) + ".sig")
	desc, err := c.puller.Get(ctx, tag)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tag %s: %w", tag.TagStr(), err)
	}
	var m v1.Manifest
	if err := json.Unmarshal(desc.Manifest, &m); err != nil {
		visit(evidence.Material{Format: evidence.FormatCosign}, fmt.Errorf("tag %s: manifest: %w", tag.TagStr(), err))
		return nil
	}
	// cosign appends: the newest signature is the last.
	layers := m.Layers[max(0, len(m.Layers)-maxCandidates):]
	for _, l := range slices.Backward(layers) {
		material, err := c.simpleSigning(ctx, l)
		var odd *contentError
		if err != nil && !errors.As(err, &odd) {
			return fmt.Errorf("signature %s: %w", l.Digest, err)
		}
		if visit(material, err) {
			return nil
		}
	}
	return nil
}

// simpleSigning fetches the payload that one layer of a classic signature is.
func (c *conversation) simpleSigning(ctx context.Context, layer v1.Descriptor) (evidence.Material, error) {
	m := evidence.Material{Format: evidence.FormatCosign}
	encoded, ok := layer.Annotations[signatureAnnotation]
	if !ok {
		return m, &contentError{fmt.Errorf("layer %s has no annotation %s", layer.Digest, signatureAnnotation)}
	}
	var err error
	if m.Signature, err = base64.StdEncoding.DecodeString(encoded); err != nil {
		return m, &contentError{fmt.Errorf("annotation %s: %w", signatureAnnotation, err)}
	}
	m.Payload, err = c.blob(ctx, layer)
	return m, err
}

// blob fetches a blob of bounded size; the client library compares its digest.
func (c *conversation) blob(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	if desc.Size > evidence.MaxBlob {
		return nil, &contentError{fmt.Errorf("blob %s: %d bytes are more than %d", desc.Digest, desc.Size, evidence.MaxBlob)}
	}
	layer, err := c.puller.Layer(ctx, c.ref.Context().Digest(desc.Digest.String()))
	if err != nil {
		return nil, err
	}
	body, err := layer.Compressed()
	if err != nil {
		return nil, notFoundIsContent(err)
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, evidence.MaxBlob+1))
	if err == nil && len(data) > evidence.MaxBlob {
		err = errOverBudget
	}
	return data, err
}

// absent reports whether the registry says that it does not have the image.
func (c *conversation) absent(ctx context.Context) bool {
	_, err := c.puller.Head(ctx, c.ref)
	return isNotFound(err)
}

// isNotFound reports whether the registry says that there is no such thing.
func isNotFound(err error) bool {
	var t *transport.Error
	return errors.As(err, &t) && t.StatusCode == http.StatusNotFound
}

// notFoundIsContent makes the absence of something that a manifest names that
// manifest's fault.
func notFoundIsContent(err error) error {
	if isNotFound(err) {
		return &contentError{err}
	}
	return err
}
