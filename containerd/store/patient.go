package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// patient is a fetcher whose downloads outlive the link: one that is cut is
// asked for again from the byte at which it was cut, at once, and then less and
// less often. As long as bytes come there is no end to that; without, it is
// over after maxAttempts, in about a minute, so that the reason is reported.
//
// It matters that client.Pull does not see the cut: that would end the downloads
// of the other layers too, and what they had in hand would be asked for twice.
type patient struct {
	remotes.Fetcher
	refuse func(ocispec.Descriptor) // told of what the registry does not go on with in the middle; may be nil
}

// How often, and after which pauses, a registry is asked that does not answer.
const (
	maxAttempts   = 9 // in the middle of a download
	firstAttempts = 5 // of the first question: a registry that is down is soon told
	firstPause    = 100 * time.Millisecond
	lastPause     = 10 * time.Second
)

// Fetch is remotes.Fetcher's. Only the registry is asked, not the addresses that
// a manifest may name for a layer.
func (p patient) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	desc.URLs = nil
	return &patientBody{
		size: desc.Size,
		open: func(offset int64) (io.ReadCloser, error) {
			body, err := p.Fetcher.Fetch(ctx, desc)
			if err != nil || offset == 0 {
				return body, err
			}
			seeker, ok := body.(io.Seeker)
			if !ok {
				body.Close()
				return nil, errors.New("the registry's client cannot go on in the middle")
			}
			if _, err := seeker.Seek(offset, io.SeekStart); err != nil {
				body.Close()
				return nil, err
			}
			return body, nil
		},
		pause: func(d time.Duration) error { return pause(ctx, d) },
		refuse: func() {
			if p.refuse != nil {
				p.refuse(desc)
			}
		},
	}, nil
}

// patientBody is one download. Reads and seeks are of one goroutine.
type patientBody struct {
	size   int64 // of the whole
	open   func(offset int64) (io.ReadCloser, error)
	pause  func(time.Duration) error // fails when nobody wants the download any more
	refuse func()                    // the registry does not go on in the middle

	body   io.ReadCloser // nil while it is cut
	offset int64
	got    int64 // since it was last cut
	tries  attempts
}

// Read is io.Reader's. It returns io.EOF at the end of the whole only.
func (b *patientBody) Read(p []byte) (int, error) {
	for {
		n, err := b.read(p)
		b.offset += int64(n)
		b.got += int64(n)
		if err == nil || err == io.EOF && b.offset >= b.size {
			return n, err
		}
		b.cut(err)
		if n > 0 {
			return n, nil // what is wrong shows at the next call
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if isUnresumable(err) {
			b.refuse()
		}
		if isFinal(err) {
			return 0, err
		}
		wait, ok := b.tries.next(maxAttempts)
		if !ok {
			return 0, fmt.Errorf("%d attempts: %w", maxAttempts, err)
		}
		if err := b.pause(wait); err != nil {
			return 0, err
		}
	}
}

func (b *patientBody) read(p []byte) (int, error) {
	if b.body == nil {
		body, err := b.open(b.offset)
		if err != nil {
			return 0, err
		}
		b.body = body
	}
	return b.body.Read(p)
}

// cut lets go of the connection. Bytes that came are progress, but for a
// trickle.
func (b *patientBody) cut(err error) {
	if b.body != nil {
		b.body.Close()
		b.body = nil
	}
	if b.got > 0 && !errors.Is(err, errStalled) {
		b.tries = attempts{}
	}
	b.got = 0
}

// Seek is io.Seeker's, from the start only: so a download goes on that an
// earlier process began.
func (b *patientBody) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart || offset < 0 {
		return 0, fmt.Errorf("seek to %d from %d: want a place from the start", offset, whence)
	}
	if offset != b.offset {
		b.cut(nil)
		b.offset = offset
	}
	return offset, nil
}

func (b *patientBody) Close() error {
	if b.body == nil {
		return nil
	}
	return b.body.Close()
}

// insist calls ask until it succeeds, or fails for good.
func insist(ctx context.Context, ask func() error) error {
	var tries attempts
	for {
		err := ask()
		if err == nil || isFinal(err) {
			return err
		}
		wait, ok := tries.next(firstAttempts)
		if !ok {
			return fmt.Errorf("%d attempts: %w", firstAttempts, err)
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// attempts counts failures without progress. The zero value is none.
type attempts struct{ failed int }

// next says how long to wait before the next of so many attempts.
func (a *attempts) next(most int) (wait time.Duration, ok bool) {
	a.failed++
	if a.failed >= most {
		return 0, false
	}
	return min(firstPause<<(a.failed-1), lastPause), true
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// isFinal reports whether asking again is of no use.
func isFinal(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		return status.StatusCode < 500 && status.StatusCode != http.StatusTooManyRequests && status.StatusCode != http.StatusRequestTimeout
	}
	var certificate *tls.CertificateVerificationError
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, docker.ErrInvalidAuthorization) || errors.Is(err, errRedirect) || errors.As(err, &certificate) ||
		errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) || errdefs.IsInvalidArgument(err)
}

// isUnresumable reports whether the registry does not give the rest of a
// download alone.
func isUnresumable(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	return errors.As(err, &status) && status.StatusCode == http.StatusRequestedRangeNotSatisfiable
}
