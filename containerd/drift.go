package containerd

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
)

// labelSeal holds a digest of each part of a container that nobody is to change.
const labelSeal = "tidemark.io/seal"

// sealed are the parts that a seal covers, and what to say when one differs.
var sealed = []struct {
	drift  string
	digest func(containers.Container) string
}{
	{"its specification was changed", func(c containers.Container) string {
		kind, value := contents(c.Spec)
		return digestOf(kind, value)
	}},
	{"its runtime was changed", func(c containers.Container) string {
		kind, options := contents(c.Runtime.Options)
		return digestOf(c.Snapshotter, c.Runtime.Name, kind, options)
	}},
	{"its labels were changed", func(c containers.Container) string {
		var lasting []string
		for _, name := range lastingLabels {
			lasting = append(lasting, c.Labels[name])
		}
		return digestOf(lasting...)
	}},
}

// lastingLabels are written once. A new one must not be added here: it would
// break the seals of containers that run already.
var lastingLabels = []string{
	labelModule, labelHash, labelCommit, labelImage, labelChain, labelNetwork, labelUser, labelStopSignal, labelStopTimeout,
}

// seal is the value of labelSeal for a container that is about to be made.
func seal(c containers.Container) string {
	digests := make([]string, len(sealed))
	for i, part := range sealed {
		digests[i] = part.digest(c)
	}
	return strings.Join(digests, ".")
}

// driftOf says how a container differs from what was made; empty when it does
// not. One that an earlier release made without a seal cannot be told.
func driftOf(c containers.Container) string {
	value := c.Labels[labelSeal]
	if value == "" {
		return ""
	}
	digests := strings.Split(value, ".")
	if len(digests) != len(sealed) {
		return "its seal was changed"
	}
	for i, part := range sealed {
		if part.digest(c) != digests[i] {
			return part.drift
		}
	}
	return ""
}

// contents are the type and the bytes of a value; empty when there is none.
func contents(value typeurl.Any) (kind, bytes string) {
	if value == nil {
		return "", ""
	}
	return value.GetTypeUrl(), string(value.GetValue())
}

// digestOf is 128 bits of a digest of the parts.
func digestOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:", len(p))
		io.WriteString(h, p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
