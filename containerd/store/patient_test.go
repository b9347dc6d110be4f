package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// link is a registry behind a link that breaks after each so many bytes.
type link struct {
	data  []byte
	each  int   // bytes until it breaks
	fails error // how it breaks
	sent  int
	asked int
}

func (l *link) Fetch(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	l.asked++
	return &linkBody{link: l}, nil
}

type linkBody struct {
	*link
	at, came int
}

func (b *linkBody) Seek(offset int64, _ int) (int64, error) { b.at = int(offset); return offset, nil }
func (b *linkBody) Close() error                            { return nil }
func (b *linkBody) Read(p []byte) (int, error) {
	if b.at == len(b.data) {
		return 0, io.EOF
	}
	if b.came == b.each {
		return 0, b.fails
	}
	n := copy(p[:min(len(p), b.each-b.came)], b.data[b.at:])
	b.at, b.came, b.sent = b.at+n, b.came+n, b.sent+n
	return n, nil
}

func fetch(ctx context.Context, l *link) ([]byte, error) {
	body, err := patient{Fetcher: l}.Fetch(ctx, ocispec.Descriptor{Size: int64(len(l.data)), URLs: []string{"http://elsewhere.example"}})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// However often it breaks, what came is not asked for again, and it soon goes on.
func TestALinkThatBreaksIsGoneOnWith(t *testing.T) {
	for _, fails := range []error{io.ErrUnexpectedEOF, io.EOF, errors.New("connection reset by peer")} {
		synctest.Test(t, func(t *testing.T) {
			l := &link{data: bytes.Repeat([]byte("0123456789"), 1000), each: 7, fails: fails}
			began := time.Now()
			got, err := fetch(t.Context(), l)
			if err != nil || !bytes.Equal(got, l.data) || l.sent != len(l.data) {
				t.Errorf("%v: %d bytes for %d, %v", fails, l.sent, len(got), err)
			}
			if per := time.Since(began) / time.Duration(l.asked); per > firstPause {
				t.Errorf("waited %v at each break", per)
			}
		})
	}
}

func TestALinkWithoutProgressEnds(t *testing.T) {
	trickle := fmt.Errorf("%w: one byte", errStalled)
	for name, l := range map[string]*link{
		"nothing comes": {data: make([]byte, 100), each: 0, fails: io.ErrUnexpectedEOF},
		"a trickle":     {data: make([]byte, 1<<20), each: 1, fails: trickle},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			_, err := fetch(t.Context(), l)
			if took := time.Since(began); err == nil || l.asked != maxAttempts || took > time.Minute {
				t.Errorf("%s: asked %d times in %v: %v", name, l.asked, took, err)
			}
		})
	}
}

func TestNobodyInsistsOnANo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, code := range []int{400, 401, 403, 404, 416} {
			l := &link{data: make([]byte, 100), fails: remoteerrors.ErrUnexpectedStatus{StatusCode: code}}
			if _, err := fetch(t.Context(), l); err == nil || l.asked != 1 {
				t.Errorf("%d: asked %d times: %v", code, l.asked, err)
			}
		}
		for _, code := range []int{408, 429, 500, 503} {
			l := &link{data: make([]byte, 100), fails: remoteerrors.ErrUnexpectedStatus{StatusCode: code}}
			if _, err := fetch(t.Context(), l); err == nil || l.asked != maxAttempts {
				t.Errorf("%d: asked %d times: %v", code, l.asked, err)
			}
		}
	})
}

func TestADownloadThatNobodyWantsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		began := time.Now()
		l := &link{data: make([]byte, 100), fails: io.ErrUnexpectedEOF}
		if _, err := fetch(ctx, l); !errors.Is(err, context.Canceled) || time.Since(began) > time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}
