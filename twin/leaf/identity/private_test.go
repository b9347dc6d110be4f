package identity

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRunDirectory(t *testing.T) {
	onDisk := t.TempDir()
	if memory, err := inMemory(onDisk); err != nil {
		t.Fatal(err)
	} else if memory {
		if onDisk, err = os.MkdirTemp("/var/tmp", "leaf"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(onDisk) })
	}
	dir := filepath.Join(onDisk, "run")
	if err := PrepareRunDir(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	if memory, err := inMemory(dir); err != nil || !memory {
		t.Errorf("in memory: %v, %v", memory, err)
	}
	if err := PrepareRunDir(dir); err != nil {
		t.Errorf("again: %v", err)
	}
	var before, after unix.Stat_t
	if err := errors.Join(unix.Stat(dir, &before), PrepareRunDir(dir), unix.Stat(dir, &after)); err != nil || before.Dev != after.Dev {
		t.Errorf("a second file system was mounted: %v", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := PrepareRunDir(dir); err != nil {
		t.Errorf("open to others: %v", err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v: want 0755", info.Mode(), err)
	}
	planted := filepath.Join(dir, "planted")
	if err := errors.Join(os.Chmod(dir, 0o777), os.Symlink("/etc", planted), os.Lchown(planted, 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	if err := PrepareRunDir(dir); err == nil || !strings.Contains(err.Error(), "user 12345 has put planted there") {
		t.Errorf("somebody put a file there: %v", err)
	}
}
