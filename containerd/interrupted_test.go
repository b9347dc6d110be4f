package containerd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/tidemark-edge/tidemark/containerd"
	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// arrived is how much of the image's layers is in the content store.
func (s *stage) arrived() (n int64) {
	store := s.raw().ContentStore()
	statuses, err := store.ListStatuses(s.ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, status := range statuses {
		n += status.Offset
	}
	store.Walk(s.ctx, func(info content.Info) error { n += info.Size; return nil })
	return n
}

// half waits until half of the image has come.
func (s *stage) half(b bulk) {
	s.t.Helper()
	harness.Eventually(s.t, func() error {
		if n := s.arrived(); n < b.size/2 {
			return fmt.Errorf("%d of %d bytes have come", n, b.size)
		}
		return nil
	})
}

// rest pulls what is missing and checks that no more is fetched than that.
func (s *stage) rest(b bulk, proxy *fault.Proxy) {
	s.t.Helper()
	missing := b.size - s.arrived()
	proxy.Restore()
	before := proxy.Down.Load()
	s.pull(b.Image)
	if got := proxy.Down.Load() - before; got > missing+b.size/20 || missing > b.size*2/3 {
		s.t.Errorf("fetched %d bytes, and %d of %d were missing", got, missing, b.size)
	}
	s.whole(b)
}

// iotedge#1593: pulls restarted from zero, or died of a timeout. Here no
// connection lives longer than a fifth of a layer.
func cutLink(s *stage) {
	const size = 6 << 20
	b, proxy := s.through(s.pushBulk("cut", size, 1, 2, 3, 4, 5))
	proxy.CutEach(size / 5)
	s.pull(b.Image)
	if got := proxy.Down.Load(); got > b.size*105/100 {
		s.t.Errorf("fetched %d bytes of an image of %d", got, b.size)
	}
	s.whole(b)
}

func killedAgent(s *stage) {
	b, proxy := s.through(s.pushBulk("killed", 12<<20, 30, 31, 32))
	proxy.Delay(3 * 1e6)
	agent := exec.Command(os.Args[0], "-test.run=^TestPullInAProcess$")
	agent.Env = append(os.Environ(), "PULL_IMAGE="+string(b.Image), "PULL_ADDRESS="+s.config.Address, "PULL_NAMESPACE="+s.config.Namespace)
	p := harness.Start(s.t, s.t.TempDir(), agent)
	s.half(b)
	p.Stop(os.Kill)
	collect(s)
	s.rest(b, proxy)
}

// TestPullInAProcess is the agent that another test kills.
func TestPullInAProcess(t *testing.T) {
	image := schema.Image(os.Getenv("PULL_IMAGE"))
	if image == "" {
		return
	}
	r, err := containerd.Open(schema.ContainerdConfig{Address: os.Getenv("PULL_ADDRESS"), Namespace: os.Getenv("PULL_NAMESPACE")})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Images.Pull(t.Context(), proof(t, image)); err != nil {
		t.Fatal(err)
	}
}

func killedDaemon(s *stage) {
	b, proxy := s.through(s.pushBulk("daemon", 12<<20, 40, 41, 42))
	proxy.Delay(3 * 1e6)
	ended := make(chan error)
	go func() { ended <- s.Pull(s.ctx, proof(s.t, b.Image)) }()
	s.half(b)
	s.daemon.Kill()
	if err := <-ended; err == nil {
		s.t.Fatal("pulled without a daemon")
	}
	s.daemon.Start()
	s.answers()
	s.rest(b, proxy)
}

// A download that was begun counts as present, and is not collected as long as
// somebody wants the image.
func prunedDownload(s *stage) {
	b, proxy := s.through(s.pushBulk("begun", 12<<20, 70, 71))
	proxy.Delay(3 * 1e6)
	ctx, cancel := context.WithCancel(s.ctx)
	ended := make(chan error)
	go func() { ended <- s.Pull(ctx, proof(s.t, b.Image)) }()
	s.half(b)
	cancel()
	if err := <-ended; err == nil {
		s.t.Fatal("pulled")
	}
	if err := s.Prune(s.ctx, []schema.Image{b.Image}); err != nil {
		s.t.Fatal(err)
	}
	collect(s)
	s.Reserve = 1 << 60
	var no *schema.NoRoomError
	if err := s.Room(s.ctx, proofs(s.t, b.Image)); !errors.As(err, &no) || no.Download > b.size*2/3 {
		s.t.Errorf("with half of %d bytes here: %v", b.size, err)
	}
	s.rest(b, proxy)
	if left := regexp.MustCompile(`tidemark-pull`).FindString(s.ctr("leases", "list", "-q")); left != "" {
		s.t.Errorf("a lease is left")
	}
}
