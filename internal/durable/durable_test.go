package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteReplacesWithItsMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	for _, content := range []string{"one", "two", ""} {
		if err := Write(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path, 3)
		if err != nil || string(got) != content {
			t.Fatalf("read %q, %v, want %q", got, err, content)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
			t.Fatalf("mode %v, %v", info.Mode(), err)
		}
	}
}

func TestAFailedWriteLeavesTheOldFileAndNothingBeside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	if err := Write(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	full := errors.New("no space left")
	if err := Replace(path, []byte("new"), 0o600, func(*os.File) error { return full }); !errors.Is(err, full) {
		t.Fatalf("got %v", err)
	}
	if got, err := Read(path, 100); err != nil || string(got) != "old" {
		t.Fatalf("read %q, %v", got, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
}

func TestReadIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(path, []byte("four"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, 4); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, 3); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("a file beyond its bound: %v", err)
	}
}

func TestSetAsideKeepsWhatWasBroken(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b") // no pattern
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "state")
	if err := os.WriteFile(path, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".broken-1", []byte("older"), 0o600); err != nil {
		t.Fatal(err)
	}
	kept, err := SetAside(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".broken-1"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("an older one fills the disk: %v", err)
	}
	if got, err := os.ReadFile(kept); err != nil || string(got) != "broken" {
		t.Fatalf("kept %q, %v", got, err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("it is still there: %v", err)
	}
}
