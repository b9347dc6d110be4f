package containerd

import (
	"reflect"
	"strings"
	"testing"
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

func TestResolveUser(t *testing.T) {
	for _, c := range []struct {
		spec string
		want user
	}{
		{"", user{}},
		{"0", user{}},
		{"root", user{}},
		{"app", user{uid: 1000, gid: 1001, groups: []uint32{20, 44}}},
		{"1000", user{uid: 1000, gid: 1001, groups: []uint32{20, 44}}},
		{"1000:5", user{uid: 1000, gid: 5}},
		{"app:dialout", user{uid: 1000, gid: 20}},
		{"4242", user{uid: 4242}},
		{"4242:4243", user{uid: 4242, gid: 4243}},
		{"2147483647:2147483647", user{uid: maxID, gid: maxID}},
		{"twice", user{uid: 7, gid: 7}},
	} {
		got, err := resolveUser(c.spec, testPasswd, testGroup)
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
		if got, err := resolveUser(spec, testPasswd, testGroup); err == nil {
			t.Errorf("%q: got %+v, want an error", spec, got)
		}
	}
}

func FuzzResolveUser(f *testing.F) {
	f.Add("app:video", testPasswd, testGroup)
	f.Add("1000", testPasswd, testGroup)
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		u, err := resolveUser(spec, passwd, group)
		if err != nil {
			return
		}
		if u.uid > maxID || u.gid > maxID || len(u.groups) > maxGroups {
			t.Errorf("out of range: %+v", u)
		}
		if strings.Trim(spec, "0123456789") == "" && spec != "" && u.uid == 0 && strings.Trim(spec, "0") != "" {
			t.Errorf("%q became root", spec)
		}
	})
}
