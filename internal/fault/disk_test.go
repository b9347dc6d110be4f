package fault_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/internal/harness"
)

// eachFilesystem runs a test on a disk of each kind.
func eachFilesystem(t *testing.T, test func(t *testing.T, d *fault.Disk)) {
	for _, filesystem := range fault.Filesystems {
		t.Run(filesystem, func(t *testing.T) { test(t, fault.NewDisk(t, filesystem, 320)) })
	}
}

func TestAPowerCutKeepsWhatWasSyncedAndLosesWhatWasNot(t *testing.T) {
	eachFilesystem(t, func(t *testing.T, d *fault.Disk) {
		content := bytes.Repeat([]byte("tide"), 10_000)
		write := func(name string, sync bool) {
			t.Helper()
			f, err := os.Create(filepath.Join(d.Dir, name))
			if err == nil {
				_, err = f.Write(content)
			}
			if err == nil && sync {
				err = f.Sync()
			}
			if err = errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		write("synced", true)
		write("unsynced", false)
		d.PowerCut()
		if err := os.WriteFile(filepath.Join(d.Dir, "after"), nil, 0o600); !errors.Is(err, syscall.EIO) {
			t.Errorf("writing without power: %v", err)
		}
		d.Remount()
		if got, err := os.ReadFile(filepath.Join(d.Dir, "synced")); err != nil || !bytes.Equal(got, content) {
			t.Errorf("what was synced: %d bytes, %v", len(got), err)
		}
		if got, _ := os.ReadFile(filepath.Join(d.Dir, "unsynced")); bytes.Equal(got, content) {
			t.Error("what was not synced survived: no power was cut")
		}
		if d.Fsck == "" {
			t.Error("nothing was checked")
		}
	})
}

// writesTo is the variable with which this program is started as one that writes to
// a directory.
const writesTo = "TIDEMARK_FAULT_WRITES_TO"

// writers is how many files writeAndTell writes at once.
const writers = 4

// record is one that writeAndTell writes.
func record(n uint64) []byte { return fmt.Appendf(nil, "%0127d\n", n) }

// writeAndTell appends to files, a record at a time, until that fails. Each record
// that is synced is told: its number is written to a file of the same name in the
// working directory.
func writeAndTell(dir string) {
	var wait sync.WaitGroup
	for i := range writers {
		wait.Go(func() {
			f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
			if err != nil {
				return
			}
			told, err := os.Create(fmt.Sprint(i))
			for n := uint64(0); err == nil; n++ {
				if _, err = f.Write(record(n)); err == nil {
					err = f.Sync()
				}
				if err == nil {
					_, err = told.WriteAt(binary.NativeEndian.AppendUint64(nil, n+1), 0)
				}
			}
		})
	}
	wait.Wait()
	os.Exit(0)
}

// TestNothingIsAcknowledgedAfterAPowerCut cuts the power while files are synced. An
// fsync that is under way then may return success for what is lost, and nobody may
// hear of it.
func TestNothingIsAcknowledgedAfterAPowerCut(t *testing.T) {
	t.Parallel()
	for _, filesystem := range fault.Filesystems {
		t.Run(filesystem, func(t *testing.T) {
			t.Parallel()
			d, sum, memory := fault.NewDisk(t, filesystem, 320), uint64(0), t.TempDir()
			// To tell is not to wait for a disk: it would come to an end after the cut.
			if err := syscall.Mount("told", memory, "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { syscall.Unmount(memory, syscall.MNT_DETACH) })
			for cut := range 12 {
				told, dir := filepath.Join(memory, fmt.Sprint(cut)), filepath.Join(d.Dir, fmt.Sprint(cut))
				if err := errors.Join(os.Mkdir(told, 0o755), os.Mkdir(dir, 0o755)); err != nil {
					t.Fatal(err)
				}
				syscall.Sync()
				writer := exec.Command(os.Args[0])
				writer.Dir, writer.Env = told, append(os.Environ(), writesTo+"="+dir)
				if err := writer.Start(); err != nil {
					t.Fatal(err)
				}
				harness.Eventually(t, func() error { _, err := os.Stat(filepath.Join(told, "0")); return err })
				time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
				d.PowerCut(writer.Process.Pid)
				var then [writers][]byte
				for i := range writers {
					then[i], _ = os.ReadFile(filepath.Join(told, fmt.Sprint(i))) // it may not have come so far
				}
				time.Sleep(20 * time.Millisecond) // in which it would speak
				writer.Process.Kill()
				writer.Wait()
				d.Remount()
				for i := range writers {
					name := fmt.Sprint(i)
					said, _ := os.ReadFile(filepath.Join(told, name))
					if !bytes.Equal(said, then[i]) {
						t.Errorf("cut %d: something was told after it", cut)
					}
					if len(said) == 0 {
						continue
					}
					last := binary.NativeEndian.Uint64(said) - 1
					sum += last + 1
					got, err := os.ReadFile(filepath.Join(dir, name))
					for n := uint64(0); n <= last; n++ {
						if want := record(n); len(got) < len(want)*int(n+1) || !bytes.Equal(got[len(want)*int(n):len(want)*int(n+1)], want) {
							t.Fatalf("cut %d: record %d of %d in file %s was synced, and is lost: %v", cut, n, last, name, err)
						}
					}
				}
			}
			if t.Logf("%d records were synced", sum); sum == 0 {
				t.Error("nothing was synced before the power went")
			}
		})
	}
}

func TestADiskIsFilledToTheLastBlock(t *testing.T) {
	eachFilesystem(t, func(t *testing.T, d *fault.Disk) {
		path := filepath.Join(d.Dir, "file")
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		d.Fill(0)
		if err := os.WriteFile(path+"2", make([]byte, 4096), 0o600); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("writing to a full disk: %v", err)
		}
		os.Remove(path + "2")
		d.Fill(1)
		t.Logf("%d bytes available with a block left", d.Available())
		d.Free()
		if err := os.WriteFile(path+"2", make([]byte, 1<<20), 0o600); err != nil {
			t.Fatalf("writing after the disk was freed: %v", err)
		}
	})
}
