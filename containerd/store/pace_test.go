package store

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type roundTrip func() io.ReadCloser

func (f roundTrip) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{Body: f()}, nil
}

// trickle writes chunk again and again, every pause.
func trickle(w *io.PipeWriter, chunk int, pause time.Duration, n int) {
	for range n {
		time.Sleep(pause)
		if _, err := w.Write(make([]byte, chunk)); err != nil {
			return
		}
	}
	w.Close()
}

func download(chunk int, pause time.Duration, n int) (int64, error) {
	r, w := io.Pipe()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { trickle(w, chunk, pause, n) })
	resp, err := pace{base: roundTrip(func() io.ReadCloser { return r }), window: time.Minute, bytes: 1024}.RoundTrip(nil)
	if err != nil {
		return 0, err
	}
	return io.Copy(io.Discard, resp.Body)
}

// containerd#11650: a registry that sends a byte now and then held a pull for
// ever.
func TestATrickleIsNoProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, err := download(1, 10*time.Second, 1000)
		if !errors.Is(err, errStalled) || n > 10 {
			t.Fatalf("got %d bytes, %v", n, err)
		}
	})
}

func TestSilenceIsNoProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if _, err := download(1<<20, time.Hour, 1); !errors.Is(err, errStalled) {
			t.Fatalf("got %v", err)
		}
	})
}

// containerd#1593 of iotedge: pulls died of a fixed timeout.
func TestASlowLinkIsProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const days = 3 * 24 * 60 * 2 // half minutes
		n, err := download(1024, 30*time.Second, days)
		if err != nil || n != days*1024 {
			t.Fatalf("got %d bytes, %v", n, err)
		}
	})
}

func TestWritingSlowlyIsNotTheRegistrysFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		body := io.NopCloser(strings.NewReader(strings.Repeat("x", 4)))
		resp, _ := pace{base: roundTrip(func() io.ReadCloser { return body }), window: time.Minute, bytes: 1024}.RoundTrip(nil)
		for range 4 {
			if _, err := resp.Body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
	})
}
