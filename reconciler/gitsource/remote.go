package gitsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/tidemark-edge/tidemark/internal/durable"
	"github.com/tidemark-edge/tidemark/schema"
)

// remote is one conversation with the fleet repository.
type remote interface {
	// tip says what the branch points at: one round trip, errNoBranch where there is none.
	tip(ctx context.Context, branch string) (plumbing.Hash, error)
	// filters reports whether request.commitsOnly is understood.
	filters() bool
	// pack asks for objects.
	pack(ctx context.Context, req request) (io.ReadCloser, error)
	close()
}

// request says which objects are wanted.
type request struct {
	want        plumbing.Hash
	depth       int           // commits along each line from want on
	commitsOnly bool          // no trees, no files
	have        plumbing.Hash // a commit that is here with its whole tree, and nothing below it; may be zero
}

var errNoBranch = errors.New("no such branch")

func init() {
	// go-git offers no multi_ack by default, because it does not negotiate. We
	// say all we have in one go, so the answer stays readable; and Azure DevOps
	// serves nobody without it (go-git's _examples/azure_devops).
	transport.UnsupportedCapabilities = []capability.Capability{capability.ThinPack}
}

// dial opens a conversation. Credentials are read afresh each time, so that
// they can be renewed under a running agent.
func dial(ctx context.Context, repo schema.Repository, at location, dog *watchdog, limits Limits) (remote, error) {
	switch at.kind {
	case kindLocal:
		return openLocal(at.path, limits)
	case kindHTTP:
		return openHTTP(repo, at, dog, limits)
	default:
		return openSSH(ctx, repo, at, dog)
	}
}

// upload turns r into the protocol's request.
func (r request) upload(caps *capability.List) (*packp.UploadPackRequest, error) {
	if !caps.Supports(capability.Shallow) {
		return nil, errors.New("the server does not support shallow clones")
	}
	req := packp.NewUploadPackRequestFromCapabilities(caps)
	set := []capability.Capability{capability.Shallow}
	if caps.Supports(capability.NoProgress) {
		set = append(set, capability.NoProgress)
	}
	if r.commitsOnly {
		set = append(set, capability.Filter)
		req.Filter = packp.FilterTreeDepth(0)
	}
	for _, c := range set {
		if err := req.Capabilities.Set(c); err != nil {
			return nil, err
		}
	}
	req.Wants = []plumbing.Hash{r.want}
	req.Depth = packp.DepthCommits(r.depth)
	if !r.have.IsZero() {
		req.Haves = []plumbing.Hash{r.have}
		req.Shallows = []plumbing.Hash{r.have}
	}
	return req, nil
}

// unwrapSideband gives the pack data out of a response.
func unwrapSideband(req *packp.UploadPackRequest, res *packp.UploadPackResponse) io.ReadCloser {
	var r io.Reader = res
	switch {
	case req.Capabilities.Supports(capability.Sideband64k):
		r = sideband.NewDemuxer(sideband.Sideband64k, res)
	case req.Capabilities.Supports(capability.Sideband):
		r = sideband.NewDemuxer(sideband.Sideband, res)
	}
	return struct {
		io.Reader
		io.Closer
	}{r, res}
}

// branchTip finds a branch among what a server advertises.
func branchTip(refs *packp.AdvRefs, branch string) (plumbing.Hash, error) {
	id, ok := refs.References["refs/heads/"+branch]
	if !ok || id.IsZero() {
		return plumbing.ZeroHash, errNoBranch
	}
	return id, nil
}

// UnreachableError says that the fleet repository could not be asked, or that
// its answer did not arrive whole. What was accepted before is not in question.
type UnreachableError struct {
	URL string
	Err error
}

func (e *UnreachableError) Error() string { return "fetch " + e.URL + ": " + e.Err.Error() }
func (e *UnreachableError) Unwrap() error { return e.Err }

// cleaned is an error whose text is fit to be shown: one line, of bounded
// length, without the secrets in it.
type cleaned struct {
	text string
	err  error
}

func (e *cleaned) Error() string { return e.text }
func (e *cleaned) Unwrap() error { return e.err }

// sha256Text is the answer to a format that go-git 5 does not read.
const sha256Text = "the repository was made with --object-format=sha256, which is not supported: use the default, sha1"

// clean says what to do where that is known, and takes secrets out: a server
// may repeat in its answer what it was sent.
func clean(err error, secrets []string) error {
	text := err.Error()
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "…")
		}
	}
	text = printable(text, 500)
	switch {
	case strings.Contains(text, "object-format=sha256"):
		text = sha256Text
	case errors.Is(err, transport.ErrAuthenticationRequired):
		text = "the server wants credentials, or did not accept those in tokenFile: " + text
	case errors.Is(err, transport.ErrAuthorizationFailed):
		text = "the credentials do not allow to read this repository: " + text
	case errors.Is(err, transport.ErrRepositoryNotFound):
		text = "there is no such repository, or the credentials do not show it: " + text
	}
	return &cleaned{text: text, err: err}
}

// readSecret reads a file that holds credentials.
func readSecret(what, path string) ([]byte, error) {
	raw, err := durable.ReadSecret(path, 64<<10)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return raw, nil
}
