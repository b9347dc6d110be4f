package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	if err := os.WriteFile(path, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[fs.FileMode]string{
		0o600: "", 0o400: "", 0o640: "", 0o440: "",
		0o644: "chmod o=", 0o604: "chmod o=", 0o602: "chmod o=", 0o601: "chmod o=", 0o666: "chmod o=", 0o660: "chmod g-w", 0o620: "chmod g-w",
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		data, err := ReadSecret(path, 64)
		if want == "" && (err != nil || string(data) != "s3cret") {
			t.Errorf("mode %04o: %q, %v", mode, data, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "s3cret")) {
			t.Errorf("mode %04o: %v, want %q", mode, err, want)
		}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecret(link, 64); err != nil {
		t.Errorf("by a link, as secrets are often mounted: %v", err)
	}
	if _, err := ReadSecret(path, 3); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if _, err := ReadSecret(dir, 64); err == nil {
		t.Error("a directory is read")
	}
	if _, err := ReadSecret(filepath.Join(dir, "none"), 64); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSecret(path, 64); err == nil || !strings.Contains(err.Error(), "12345") {
			t.Errorf("of somebody else: %v", err)
		}
	}
}
