package evidence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var digest = "sha256:" + strings.Repeat("ab", 32)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSavedIsLoaded(t *testing.T) {
	s := open(t)
	if _, err := s.Load(digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing stored: %v", err)
	}
	if s.Stamp(digest) != (Stamp{}) {
		t.Error("a stamp of nothing")
	}
	for _, want := range []Material{
		{Format: FormatBundle, Bundle: []byte(`{"a":1}`), Verified: time.Unix(1, 0).UTC()},
		{Format: FormatCosign, Payload: []byte("{}"), Signature: []byte{0, 255}},
	} {
		if err := s.Save(digest, want); err != nil {
			t.Fatal(err)
		}
		got, err := s.Load(digest)
		if err != nil || cmp.Diff(want, got) != "" {
			t.Errorf("%v\n%s", err, cmp.Diff(want, got))
		}
	}
	left, _ := os.ReadDir(s.Dir)
	if len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	if err := s.Save(digest, Material{Bundle: make([]byte, MaxBlob+1)}); err == nil {
		t.Error("more than MaxBlob is stored")
	}
}

func TestBrokenFilesDoNotPileUp(t *testing.T) {
	s := open(t)
	for n := range maxBroken + 5 {
		if err := os.WriteFile(s.Path(digest), fmt.Append(nil, n), 0o600); err != nil {
			t.Fatal(err)
		}
		var broken *BrokenError
		if _, err := s.Load(digest); !errors.As(err, &broken) {
			t.Fatalf("error = %v", err)
		}
		if _, err := s.Load(digest); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the second time: %v", err)
		}
	}
	if err := s.Prune(nil); err != nil {
		t.Fatal(err)
	}
	left, _ := filepath.Glob(filepath.Join(s.Dir, "*"))
	if len(left) != maxBroken {
		t.Errorf("%d files left", len(left))
	}
	newest, err := os.ReadFile(left[len(left)-1])
	if err != nil || string(newest) != fmt.Sprint(maxBroken+4) {
		t.Errorf("the newest is %s, %v", newest, err)
	}
}

func FuzzDecode(f *testing.F) {
	good, err := encode(Material{Format: FormatBundle, Bundle: []byte("{}")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("sha256:00\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := decode(data)
		if err != nil {
			return
		}
		if again, err := encode(m); err == nil {
			if _, err := decode(again); err != nil {
				t.Errorf("%q: %v", data, err)
			}
		}
	})
}
