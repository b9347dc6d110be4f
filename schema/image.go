package schema

import (
	"fmt"
	"regexp"
	"strings"
)

// Image names a module image by content: repository@sha256:<64 hex digits>.
// It is never a tag: a tag can be moved after the review.
type Image string

var imageRE = regexp.MustCompile(`^[a-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+@sha256:[0-9a-f]{64}$`)

// maxImage bounds a reference: a repository has at most 255 bytes, and a host as
// many.
const maxImage = 600

// ParseImage checks that s is repository@sha256:digest, with the registry host
// spelled out, and says what to write instead where it is not.
func ParseImage(s string) (Image, error) {
	if len(s) > maxImage {
		return "", fmt.Errorf("image %.60q…: longer than %d bytes", s, maxImage)
	}
	if imageRE.MatchString(s) {
		return Image(s), nil
	}
	if !strings.Contains(s, "@") {
		return "", fmt.Errorf("image %q: a tag can be moved after the review: pin the digest, as in registry.example.com/app@sha256:…", s)
	}
	return "", fmt.Errorf("image %q: want host/repository@sha256:<64 hex digits>", s)
}

// Repository is the part before the digest, host included.
func (i Image) Repository() string { r, _, _ := strings.Cut(string(i), "@"); return r }

// Digest is the part after the @, "sha256:…".
func (i Image) Digest() string { _, d, _ := strings.Cut(string(i), "@"); return d }

// Registry is the host, with its port if it has one.
func (i Image) Registry() string { h, _, _ := strings.Cut(string(i), "/"); return h }
