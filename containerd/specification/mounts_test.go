package specification

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/containerd/account"
	"github.com/tidemark-edge/tidemark/schema"
)

func TestMountsRefuse(t *testing.T) {
	h := Host{StateDir: t.TempDir()}
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
		if got, err := h.Mounts(schema.Module{Name: "m", Network: schema.NetworkNone, Mounts: mounts}, account.IDs{}, ""); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestMountsBelowOthersComeAfter(t *testing.T) {
	h := Host{StateDir: t.TempDir()}
	got, err := h.Mounts(schema.Module{Name: "m", Network: schema.NetworkNone, Mounts: map[string]schema.Mount{
		"/data/cache": {Tmpfs: 1}, "/data": {Volume: "v"}, "/data/cache/x": {Volume: "w", ReadOnly: true},
	}}, account.IDs{}, "/run/x")
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
	h := Host{StateDir: t.TempDir()}
	dir := filepath.Join(h.StateDir, "volumes", "m")
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
		if got, err := h.volume("m", name, account.IDs{UID: 1}); err == nil {
			t.Errorf("%s is taken for a directory: %s", name, got)
		}
	}
}
