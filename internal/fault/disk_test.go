package fault_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/fault"
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
