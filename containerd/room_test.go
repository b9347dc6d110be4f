package containerd_test

import (
	"errors"
	"testing"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

func room(s *stage) {
	a, b := s.pushBulk("one", 3<<20, 50, 51), s.pushBulk("two", 3<<20, 50, 51, 52)
	f := newFront(s.t, s.registry)
	a.Image, b.Image = via(f.address, a.Image), via(f.address, b.Image)
	both := proofs(s.t, a.Image, b.Image)
	if err := s.Room(s.ctx, both); err != nil {
		s.t.Fatal(err)
	}
	if got, _ := blobs(f.questions()); got != 2 {
		s.t.Errorf("want the two configurations, asked %q", f.questions())
	}
	refused := func(want int64) {
		s.t.Helper()
		s.Reserve = 1 << 60
		defer func() { s.Reserve = 0 }()
		var no *schema.NoRoomError
		if err := s.Room(s.ctx, both); !errors.As(err, &no) {
			s.t.Fatalf("want no room, got %v", err)
		}
		if no.Download != want || no.Unpacked < want*2 || no.Unpacked > want*3 || no.Free <= 0 || no.Reserve != 1<<60 || no.Missing() <= 0 {
			s.t.Errorf("want %d to download: %v", want, no)
		}
	}
	refused(b.size)
	s.pull(a.Image)
	refused(b.layer[2])
	s.pull(b.Image)
	s.Reserve = 1 << 60
	f.set(nil, nil)
	if err := s.Room(s.ctx, both); err != nil || len(f.questions()) != 0 {
		s.t.Errorf("of ready images: %v, asked %q", err, f.questions())
	}
}

func roomUnknown(s *stage) {
	b, proxy := s.through(s.pushBulk("down", 1<<20, 60))
	proxy.Cut()
	var no *schema.NoRoomError
	if err := s.Room(s.ctx, proofs(s.t, b.Image)); err == nil || errors.As(err, &no) {
		s.t.Errorf("with the registry down: %v", err)
	}
}

// proofs are real proofs that images are signed.
func proofs(t testing.TB, images ...schema.Image) (all []signing.Verified) {
	for _, image := range images {
		all = append(all, proof(t, image))
	}
	return all
}
