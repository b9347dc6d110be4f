package containerd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/schema"
	"golang.org/x/sys/unix"
)

func TestMountsRefuse(t *testing.T) {
	r := &Runtime{StateDir: t.TempDir()}
	volume := schema.Mount{Volume: "v"}
	for name, mounts := range map[string]map[string]schema.Mount{
		"relative":             {"data": volume},
		"not clean":            {"/data/../etc": volume},
		"trailing":             {"/data/": volume},
		"root":                 {"/": volume},
		"nothing":              {"": volume},
		"proc":                 {"/proc": volume},
		"below proc":           {"/proc/sys": volume},
		"sys":                  {"/sys/fs/cgroup": volume},
		"dev":                  {"/dev": volume},
		"run":                  {"/run": volume},
		"identity":             {"/run/tidemark": volume},
		"below identity":       {"/run/tidemark/identity.nk": volume},
		"hosts":                {"/etc/hosts": volume},
		"NUL":                  {"/da\x00ta": volume},
		"none of three":        {"/data": {}},
		"two of three":         {"/data": {Volume: "v", Tmpfs: 1}},
		"a volume that climbs": {"/data": {Volume: "../other"}},
		"a volume with dots":   {"/data": {Volume: ".."}},
		"negative tmpfs":       {"/data": {Tmpfs: -1}},
		"host":                 {"/data": {Host: "/etc"}},
	} {
		if got, err := r.mounts(schema.Module{Name: "m", Network: schema.NetworkNone, Mounts: mounts}, user{}, ""); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestMountsBelowOthersComeAfter(t *testing.T) {
	r := &Runtime{StateDir: t.TempDir()}
	got, err := r.mounts(schema.Module{Name: "m", Network: schema.NetworkNone, Mounts: map[string]schema.Mount{
		"/data/cache": {Tmpfs: 1}, "/data": {Volume: "v"}, "/data/cache/x": {Volume: "w", ReadOnly: true},
	}}, user{}, "/run/x")
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, m := range got {
		order = append(order, m.Destination)
	}
	if s := strings.Join(order, " "); s != "/etc/hosts /run/tidemark /data /data/cache /data/cache/x" {
		t.Error(s)
	}
}

func TestAVolumeIsADirectory(t *testing.T) {
	r := &Runtime{StateDir: t.TempDir()}
	dir := filepath.Join(r.StateDir, "volumes", "m")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "file"} {
		if got, err := r.volume("m", name, user{uid: 1}); err == nil {
			t.Errorf("%s is taken for a directory: %s", name, got)
		}
	}
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
