package gitsource

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
)

// fleetFiles is a fleet repository of n devices, with something of a text's
// entropy in it.
func fleetFiles(n int) map[string]string {
	r := rand.New(rand.NewPCG(1, 2))
	files := map[string]string{"fleet.cue": "package fleet\n"}
	for i := range n {
		var b strings.Builder
		for range 40 {
			fmt.Fprintf(&b, "\tmodules: m%d: image: \"registry.example.com/x@sha256:%016x%016x\"\n", r.IntN(100), r.Uint64(), r.Uint64())
		}
		files[fmt.Sprintf("sites/s%d/d%d/device.cue", i%20, i)] = b.String()
	}
	return files
}

func benchTransports(b *testing.B, g *harness.Git, run func(b *testing.B, repo schema.Repository)) {
	b.Run("local", func(b *testing.B) { run(b, signed(g.Dir)) })
	b.Run("http", func(b *testing.B) { run(b, signed(serveHTTP(b, g, nil).URL)) })
	b.Run("ssh", func(b *testing.B) { run(b, serveSSH(b, g).configure(signed(""))) })
}

// BenchmarkPoll is a Fetch that finds nothing new.
func BenchmarkPoll(b *testing.B) {
	g := harness.NewGit(b)
	g.SignedCommit(fleetFiles(100))
	benchTransports(b, g, func(b *testing.B, repo schema.Repository) {
		s := open(b, repo)
		for b.Loop() {
			if _, _, err := s.Fetch(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkFetchCommit is what a small commit costs between the kick and its
// tree: fetch, proof, signature, survey of 100 devices, fsync.
func BenchmarkFetchCommit(b *testing.B) {
	g := harness.NewGit(b)
	g.SignedCommit(fleetFiles(100))
	benchTransports(b, g, func(b *testing.B, repo schema.Repository) {
		s := open(b, repo)
		if _, _, err := s.Fetch(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			content := b.Name() + strconv.Itoa(i)
			g.SignedCommit(file(content))
			b.StartTimer()
			_, tree, err := s.Fetch(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if raw, err := fs.ReadFile(tree, "file"); string(raw) != content {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkCatchUp is a device that was away for 100 commits.
func BenchmarkCatchUp(b *testing.B) {
	g := harness.NewGit(b)
	first := g.SignedCommit(fleetFiles(100))
	for i := range 100 {
		g.SignedCommit(file(strconv.Itoa(i)))
	}
	last := g.Head()
	benchTransports(b, g, func(b *testing.B, repo schema.Repository) {
		for b.Loop() {
			b.StopTimer()
			g.Run("reset", "-q", "--hard", first)
			s := open(b, repo)
			fetchAny(b, s)
			g.Run("reset", "-q", "--hard", last)
			b.StartTimer()
			fetchAny(b, s)
		}
	})
}

func fetchAny(b *testing.B, s *Source) {
	b.Helper()
	if _, _, err := s.Fetch(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRestart is what an offline start needs: Open, and the accepted tree.
func BenchmarkRestart(b *testing.B) {
	g := harness.NewGit(b)
	g.SignedCommit(fleetFiles(100))
	dir := b.TempDir()
	s := openIn(b, dir, signed(g.Dir))
	fetchAny(b, s)
	s.Close()
	for b.Loop() {
		s, err := Open(dir, signed(g.Dir), sawSignature{})
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := s.Accepted(); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// BenchmarkClone reports the memory that a first fetch needs at its peak, of a
// repository whose history packs to several MB. Each is a process of its own,
// for a peak has no memory of what was free before.
func BenchmarkClone(b *testing.B) {
	g := harness.NewGit(b)
	r := rand.New(rand.NewPCG(3, 4))
	for range 40 { // history that a device never sees
		noise := make([]byte, 200<<10)
		for i := range noise {
			noise[i] = byte(r.Uint32())
		}
		g.SignedCommit(map[string]string{"file": string(noise)})
	}
	g.SignedCommit(fleetFiles(1000))
	benchTransports(b, g, func(b *testing.B, repo schema.Repository) {
		config, err := json.Marshal(repo)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			cmd := exec.Command(os.Args[0], "-test.run=^TestCloneInAProcess$", "-test.v")
			cmd.Env = append(os.Environ(), cloneEnv+"="+string(config))
			out, err := cmd.CombinedOutput()
			var peak, disk float64
			_, rest, _ := strings.Cut(string(out), "peak ")
			if _, serr := fmt.Sscanf(rest, "%g disk %g", &peak, &disk); err != nil || serr != nil {
				b.Fatalf("%v %v\n%s", err, serr, out)
			}
			b.ReportMetric(peak, "peak-MiB")
			b.ReportMetric(disk, "disk-MiB")
		}
	})
}

const cloneEnv = "GITSOURCE_CLONE"

// TestCloneInAProcess is BenchmarkClone's other process. On its own it clones
// a small repository.
func TestCloneInAProcess(t *testing.T) {
	var repo schema.Repository
	if config := os.Getenv(cloneEnv); config == "" {
		g := harness.NewGit(t)
		g.SignedCommit(fleetFiles(10))
		repo = signed(g.Dir)
	} else if err := json.Unmarshal([]byte(config), &repo); err != nil {
		t.Fatal(err)
	}
	s := open(t, repo)
	before := residentPeak(t)
	if _, _, err := s.Fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	peak := residentPeak(t) - before
	var disk int64
	for _, path := range eachFile(t, s.clonePath()) {
		if info, err := os.Stat(path); err == nil {
			disk += info.Size()
		}
	}
	t.Logf("peak %.1f disk %.2f MiB", float64(peak)/(1<<20), float64(disk)/(1<<20))
}

// residentPeak is VmHWM, in bytes.
func residentPeak(t testing.TB) int64 {
	t.Helper()
	for line := range strings.Lines(readFile(t, "/proc/self/status")) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
