package gitsource_test

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/reconciler/gitsource"
	"github.com/tidemark-edge/tidemark/schema"
)

// A power cut at any moment of a Fetch leaves the commit that was accepted before
// or the new one, readable at once with no network, and sets nothing aside.
func TestAPowerCutDuringFetchLeavesTheAcceptedCommit(t *testing.T) {
	for _, filesystem := range fault.Filesystems {
		t.Run(filesystem, func(t *testing.T) {
			t.Parallel()
			disk := fault.NewDisk(t, filesystem, 320)
			git := harness.NewGit(t)
			rng := rand.New(rand.NewPCG(3, uint64(len(filesystem))))
			noise := func() string {
				b := make([]byte, 40_000)
				for i := range b {
					b[i] = "0123456789abcdef"[rng.IntN(16)]
				}
				return string(b)
			}
			open := func(url string) *gitsource.Source {
				t.Helper()
				var s *gitsource.Source
				harness.Eventually(t, func() (err error) { // a program that a test beside it starts holds the lock until it is there
					s, err = gitsource.Open(filepath.Join(disk.Dir, "agent", "git"), schema.Repository{URL: url, Branch: "main", Verify: schema.VerifyOff}, nil)
					return err
				})
				s.Limits.Packs = 3 // so that some of them compact the clone
				return s
			}
			accepted, took := "", 30*time.Millisecond // the newest that Fetch returned
			for cut := range 6 {
				s := open(git.URL())
				for more := range (cut + 1) % 3 {
					accepted = git.Commit(map[string]string{"file": fmt.Sprint(cut, more), "noise": noise()})
					if _, _, err := s.Fetch(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				next := git.Commit(map[string]string{"file": fmt.Sprint(cut), "noise": noise(), fmt.Sprint("d/", cut): noise()})
				returned := make(chan bool, 1)
				ctx, cancel := context.WithCancel(t.Context())
				begun := time.Now()
				go func() {
					_, _, err := s.Fetch(ctx)
					returned <- err == nil
				}()
				time.Sleep(time.Duration(rng.Int64N(int64(took) * 5 / 4)))
				whole := false
				select {
				case whole = <-returned:
					took = max(took, time.Since(begun))
					disk.PowerCut()
				default:
					disk.PowerCut()
					cancel()
					<-returned // whatever it says: by then there is no power
				}
				cancel()
				s.Close()
				disk.Remount()

				s = open("/nowhere") // offline
				revision, tree, err := s.Accepted()
				switch {
				case accepted == "" && !whole && err != nil:
				case err != nil:
					t.Fatalf("cut %d, fetched %v: %v", cut, whole, err)
				case whole && revision.Commit != next, revision.Commit != next && revision.Commit != accepted:
					t.Fatalf("cut %d: accepted %s; want %s (fetched: %v), or %s", cut, revision.Commit, next, whole, accepted)
				default:
					if err := everything(tree); err != nil {
						t.Errorf("cut %d: %v", cut, err)
					}
					accepted = revision.Commit
				}
				notes := strings.Join(s.Mended(), "\n")
				if aside, _ := filepath.Glob(filepath.Join(disk.Dir, "agent", "git", "*.broken-*")); len(aside) > 0 || notes != "" {
					t.Errorf("cut %d: set aside: %q; %s", cut, aside, notes)
				}
				t.Logf("cut %d: fetched %v, accepted the new one %v", cut, whole, accepted == next)
				s.Close()
			}
			s := open(git.URL())
			defer s.Close()
			revision, tree, err := s.Fetch(t.Context())
			if err != nil || revision.Commit != git.Head() {
				t.Fatalf("fetch: %s, %v", revision.Commit, err)
			}
			if err := everything(tree); err != nil {
				t.Error(err)
			}
		})
	}
}

// everything reads every file of a tree.
func everything(tree fs.FS) error {
	return fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			_, err = fs.ReadFile(tree, name)
		}
		return err
	})
}
