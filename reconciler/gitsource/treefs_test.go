package gitsource

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

func TestTreeIsAFileSystem(t *testing.T) {
	g := harness.NewGit(t)
	g.Commit(map[string]string{
		"fleet.cue": "package fleet\n", "sites/hannover/h1/device.cue": "x", "sites/hannover.cue": "y",
		"cue.mod/module.cue": "z", "empty": "", "ünï cödé": "u", "run.sh": "#!/bin/sh\n",
	})
	g.Run("update-index", "--chmod=+x", "run.sh")
	g.Commit(nil)
	_, tree, err := open(t, off(g.URL())).Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(tree, "fleet.cue", "sites/hannover/h1/device.cue", "sites/hannover.cue", "empty", "ünï cödé", "run.sh"); err != nil {
		t.Error(err)
	}
	if info, err := fs.Stat(tree, "run.sh"); err != nil || info.Mode() != 0o555 || info.Size() != 10 {
		t.Errorf("run.sh: %v, %v", info, err)
	}
	sub, err := fs.Sub(tree, "sites/hannover")
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(sub, "h1/device.cue"); err != nil {
		t.Error(err)
	}
}

func TestLinksAndSubmodulesAreShownAndNotFollowed(t *testing.T) {
	g := harness.NewGit(t)
	g.Commit(map[string]string{"file": "1", "dir/file": "2"})
	for link, to := range map[string]string{"link": "file", "dirlink": "dir", "out": "/etc/passwd"} {
		if err := os.Symlink(to, filepath.Join(g.Dir, link)); err != nil {
			t.Fatal(err)
		}
		g.Run("add", link)
	}
	g.Run("update-index", "--add", "--cacheinfo", "160000,"+g.Head()+",sub")
	g.Commit(nil)
	_, tree, err := open(t, off(g.URL())).Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]fs.FileMode{}
	err = fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		types[path] = d.Type()
		if err == nil {
			_, err = d.Info()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{
		"link": fs.ModeSymlink, "dirlink": fs.ModeSymlink, "out": fs.ModeSymlink, "sub": fs.ModeIrregular, "file": 0, "dir": fs.ModeDir,
	} {
		if got, ok := types[path]; !ok || got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
		if want == fs.ModeSymlink || want == fs.ModeIrregular {
			if raw, err := fs.ReadFile(tree, path); err == nil {
				t.Errorf("%s reads as %q", path, raw)
			}
		}
	}
	if _, err := fs.ReadFile(tree, "dirlink/file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("through a link: %v", err)
	}
}

// Every bound, exceeded by one real commit; what was accepted stays.
func TestLimits(t *testing.T) {
	zeros := strings.Repeat("\x00", 300<<10) // a bomb: a few hundred bytes on the wire
	noise := make([]byte, 100<<10)
	for i := range noise {
		noise[i] = byte(i * i * 7 >> 5)
	}
	many := map[string]string{}
	for _, a := range strings.Split("abcdefghijklmnopqrstuvwxyz", "") {
		many["many/"+a] = a
	}
	for name, c := range map[string]struct {
		files  map[string]string
		lower  func(*Limits)
		reason string
	}{
		"file":    {map[string]string{"sites/big.bin": zeros}, func(l *Limits) { l.FileBytes = 200 << 10 }, "sites/big.bin: 307200"},
		"object":  {map[string]string{"big": zeros}, func(l *Limits) { l.ObjectBytes = 200 << 10 }, "bytes of one object"},
		"total":   {map[string]string{"big": zeros}, func(l *Limits) { l.TotalBytes = 200 << 10 }, "inflated"},
		"pack":    {map[string]string{"noise": string(noise)}, func(l *Limits) { l.PackBytes = 1 << 10 }, "bytes of one transfer"},
		"objects": {many, func(l *Limits) { l.PackObjects = 20 }, "objects in one transfer"},
		"entries": {many, func(l *Limits) { l.Entries = 20 }, "files and directories"},
		"depth":   {map[string]string{"a/b/c/d/e": ""}, func(l *Limits) { l.Depth = 3 }, "directories above"},
	} {
		for transport, url := range transports(t) {
			if transport == "ssh" { // differs from http in nothing that is tried here
				continue
			}
			t.Run(name+" "+transport, func(t *testing.T) {
				g := harness.NewGit(t)
				one := g.Commit(file("1"))
				s := open(t, url(t, g, off("")))
				fetch(t, s, one, "1")
				big := g.Commit(c.files)
				c.lower(&s.Limits)
				refuses(t, s, big, c.reason, "bound", "take it out of the repository")
				if n := len(s.current().packs); n != 1 {
					t.Errorf("%d packs", n)
				}
				g.Run("reset", "-q", "--hard", one)
				s.Limits = DefaultLimits()
				fetch(t, s, g.Commit(file("2")), "2")
			})
		}
	}
}

func TestNamesThatNoFileSystemHas(t *testing.T) {
	g := harness.NewGit(t)
	one := g.Commit(file("1"))
	s := open(t, off(g.URL()))
	fetch(t, s, one, "1")
	blob := g.Run("rev-parse", "HEAD:file")
	tree := g.Run("rev-parse", "HEAD^{tree}")
	for name, lines := range map[string]string{
		"dot dot": "100644 blob " + blob + "\t..\n",
		"dot git": "040000 tree " + tree + "\t.GIT\n",
		"latin1":  "100644 blob " + blob + "\tf\xfcr\n",
		"twice":   "100644 blob " + blob + "\tx\n100644 blob " + blob + "\tx\n",
	} {
		t.Run(name, func(t *testing.T) {
			list := write(t, lines)
			id := g.Run("-c", "core.protectNTFS=false", "-c", "alias.mk=!git mktree <"+list, "mk")
			g.Run("reset", "-q", "--soft", one)
			bad := g.Run("commit-tree", "-p", one, "-m", "Bad", id)
			g.Run("update-ref", "refs/heads/main", bad)
			refuses(t, s, bad, "not fit for a device")
		})
	}
}

// A tree that names itself ten times over, ten levels deep, is a few hundred
// bytes and ten thousand million files.
func TestTreeThatUnfoldsWithoutEnd(t *testing.T) {
	g := harness.NewGit(t)
	one := g.Commit(file("1"))
	s := open(t, off(g.URL()))
	fetch(t, s, one, "1")
	id := g.Run("rev-parse", "HEAD^{tree}")
	for range 10 {
		var lines strings.Builder
		for _, name := range strings.Split("abcdefghij", "") {
			lines.WriteString("040000 tree " + id + "\t" + name + "\n")
		}
		id = g.Run("-c", "alias.mk=!git mktree <"+write(t, lines.String()), "mk")
	}
	bad := g.Run("commit-tree", "-p", one, "-m", "Bomb", id)
	g.Run("update-ref", "refs/heads/main", bad)
	refuses(t, s, bad, "files and directories in the tree")
}

func TestTreeIsReadWhileTheNextIsFetched(t *testing.T) {
	g := harness.NewGit(t)
	g.Commit(map[string]string{"file": "0", "a/b": "x"})
	s := open(t, schema.Repository{URL: g.URL(), Verify: schema.VerifyOff})
	s.Limits.Packs = 1
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 5 {
		_, tree, err := s.Fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			readers.Go(func() {
				for {
					if raw, err := fs.ReadFile(tree, "a/b"); string(raw) != "x" {
						t.Errorf("a/b: %q, %v", raw, err)
						return
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		g.Commit(map[string]string{"file": g.Head()})
	}
	close(stop)
	readers.Wait()
}
