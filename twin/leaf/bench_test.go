package leaf

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Both run on the disk that TMPDIR is on; p50 of the second is to stay within
// twice p50 of the first.

// BenchmarkFsync is the floor: one kilobyte appended to a file and synced.
func BenchmarkFsync(b *testing.B) {
	file, err := os.Create(filepath.Join(b.TempDir(), "file"))
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	block := make([]byte, 1024)
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		start := time.Now()
		if _, err := file.Write(block); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	quantiles(b, took)
}

// BenchmarkReportedUpdate is a merge patch from a module over TCP until its
// answer is back.
func BenchmarkReportedUpdate(b *testing.B) {
	s := newSite(b)
	l := s.open()
	d := declared("sensor")
	s.declare(l, d)
	conn := s.module(l, "sensor")
	if _, err := report(b, conn, "sensor", `{"a":{"b":1,"c":"some words"},"d":[1,2,3],"e":true,"f":"more"}`); err != nil {
		b.Fatal(err)
	}
	took := make([]time.Duration, 0, b.N)
	i := 0
	for b.Loop() {
		i++
		patch := []byte(`{"temperature":` + strconv.Itoa(i) + `}`)
		start := time.Now()
		if _, err := conn.Request("devices.d1.modules.sensor.twin.reported", patch, patience); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	quantiles(b, took)
}

func quantiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
