package account

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	testPasswd = `# comment
root:x:0:0:root:/root:/bin/sh
app:x:1000:1001:App:/home/app:/bin/sh
99999999999:x:0:0:out of range, and root:/:/bin/sh
-1:x:0:0::/:
huge:x:4294967296:0::/:
negative:x:-5:0::/:
broken:x
twice:x:7:7::/:
twice:x:0:0::/:
`
	testGroup = `root:x:0:
app:x:1001:
dialout:x:20:app,other
video:x:44:other,app
bad:x:4294967297:app
`
)

var testFiles = Files{testPasswd, testGroup}

func TestResolve(t *testing.T) {
	for _, c := range []struct {
		spec string
		want IDs
	}{
		{"", IDs{}},
		{"0", IDs{}},
		{"root", IDs{}},
		{"app", IDs{UID: 1000, GID: 1001, Groups: []uint32{20, 44}}},
		{"1000", IDs{UID: 1000, GID: 1001, Groups: []uint32{20, 44}}},
		{"1000:5", IDs{UID: 1000, GID: 5}},
		{"app:dialout", IDs{UID: 1000, GID: 20}},
		{"4242", IDs{UID: 4242}},
		{"4242:4243", IDs{UID: 4242, GID: 4243}},
		{"2147483647:2147483647", IDs{UID: maxID, GID: maxID}},
		{"twice", IDs{UID: 7, GID: 7}},
	} {
		got, err := testFiles.Resolve(c.spec)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %+v, %v; want %+v", c.spec, got, err, c.want)
		}
	}
}

// A number that is too large is no name, even where /etc/passwd has one that
// looks like it (CVE-2024-40635, CVE-2026-46680).
func TestUserOutOfRangeIsNeverAName(t *testing.T) {
	for _, spec := range []string{
		"99999999999", "2147483648", "4294967296", "-1", "+1", "1:-1", "1:4294967296", "99999999999:0",
		"huge", "negative", "broken", "nobody", "app:nosuch", "app:", ":5", ":", "app:bad", "a b", "../x", "app\n",
		strings.Repeat("9", 1000), strings.Repeat("a", 1000),
	} {
		if got, err := testFiles.Resolve(spec); err == nil {
			t.Errorf("%q: got %+v, want an error", spec, got)
		}
	}
}

func FuzzResolve(f *testing.F) {
	f.Add("app:video", testPasswd, testGroup)
	f.Add("1000", testPasswd, testGroup)
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		u, err := Files{passwd, group}.Resolve(spec)
		if err != nil {
			return
		}
		if u.UID > maxID || u.GID > maxID || len(u.Groups) > maxGroups {
			t.Errorf("out of range: %+v", u)
		}
		if strings.Trim(spec, "0123456789") == "" && spec != "" && u.UID == 0 && strings.Trim(spec, "0") != "" {
			t.Errorf("%q became root", spec)
		}
	})
}

func TestReadInside(t *testing.T) {
	dir := t.TempDir()
	etc := filepath.Join(dir, "etc")
	os.Mkdir(etc, 0o755)
	os.WriteFile(filepath.Join(dir, "real"), []byte("real"), 0o644)
	os.WriteFile(filepath.Join(etc, "large"), make([]byte, maxUserFile+1), 0o644)
	os.Symlink("../real", filepath.Join(etc, "inside"))
	os.Symlink("/etc/passwd", filepath.Join(etc, "absolute"))
	os.Symlink("../../../../../../etc/passwd", filepath.Join(etc, "outside"))
	os.Symlink("loop", filepath.Join(etc, "loop"))
	if err := unix.Mkfifo(filepath.Join(etc, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := readInside(dir, "etc/inside"); err != nil || s != "real" {
		t.Errorf("a link inside: %q, %v", s, err)
	}
	if s, err := readInside(dir, "etc/none"); err != nil || s != "" {
		t.Errorf("no file: %q, %v", s, err)
	}
	for _, name := range []string{"large", "absolute", "outside", "loop", "pipe", "."} {
		if s, err := readInside(dir, "etc/"+name); err == nil {
			t.Errorf("%s: read %.40q", name, s)
		}
	}
}
