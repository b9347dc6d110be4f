//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/twin"
)

// measureReported takes the round trip of a module's report, answered when it
// is on the disk, and beside it one fsync on the same disk.
func measureReported(t *testing.T, f *table) {
	const n = 2000
	r := newRig(t)
	r.declare(many(1, r.image("module")))
	r.startAgent()
	r.healthy(r.dial())
	conn, prefix := r.module(context.Background(), "m000")

	syncFile, err := os.Create(filepath.Join(r.path("state"), "fsync"))
	if err != nil {
		t.Fatal(err)
	}
	defer syncFile.Close()
	var reports, syncs []float64
	block := make([]byte, 1024)
	for i := range n {
		// In turns, so that a disk that gets slower is slower for both.
		began := time.Now()
		if _, err := syncFile.Write(block); err != nil {
			t.Fatal(err)
		}
		if err := unix.Fdatasync(int(syncFile.Fd())); err != nil {
			t.Fatal(err)
		}
		syncs = append(syncs, ms(time.Since(began)))

		began = time.Now()
		msg, err := conn.Request(prefix+".twin.reported", fmt.Appendf(nil, `{"temperature": 21.5, "n": %d}`, i), 10*time.Second)
		if err == nil {
			_, err = twin.ReadAnswer(msg.Data)
		}
		if err != nil {
			t.Fatal(err)
		}
		reports = append(reports, ms(time.Since(began)))
	}
	report, sync := percentile(reports, 50), percentile(syncs, 50)
	f.add("fsync_p50_ms", sync, "ms", "append 1 KB and fdatasync, the same disk, in turns with the next")
	f.add("reported_update_p50_ms", report, "ms", "module to leaf over TCP, merged, on disk, answered; %d in a row", n)
	f.add("reported_update_p99_ms", percentile(reports, 99), "ms", "the same")
	f.add("reported_update_vs_fsync_ratio", report/sync, "x", "of the two medians")
}
