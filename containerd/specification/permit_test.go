package specification

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/schema"
)

func TestPermitsWhatTheOwnerAllows(t *testing.T) {
	allowed := t.TempDir()
	h := Host{HostMounts: []string{allowed}, HostNetwork: []string{"gateway"}}
	host := func(target, path string) map[string]schema.Mount {
		return map[string]schema.Mount{target: {Host: path}}
	}
	for name, c := range map[string]struct {
		module schema.Module
		want   string // in the error; "" is permitted
	}{
		"nothing asked":    {schema.Module{Name: "m"}, ""},
		"allowed path":     {schema.Module{Name: "m", Mounts: host("/data", allowed)}, ""},
		"path not there":   {schema.Module{Name: "m", Mounts: host("/data", filepath.Join(allowed, "usb"))}, ""},
		"other path":       {schema.Module{Name: "m", Mounts: host("/data", "/etc")}, "module m: mount /data: host path /etc is not allowed"},
		"reserved target":  {schema.Module{Name: "m", Mounts: host("/etc/hosts", allowed)}, "/etc/hosts is reserved"},
		"allowed network":  {schema.Module{Name: "gateway", Network: schema.NetworkHost}, ""},
		"other network":    {schema.Module{Name: "m", Network: schema.NetworkHost}, `may add "m" to hostNetwork`},
		"stopped for good": {schema.Module{Name: "m", Network: schema.NetworkHost, Status: schema.StatusStopped}, ""},
	} {
		if c.module.Network == "" {
			c.module.Network = schema.NetworkNone
		}
		err := h.Permits(schema.Desired{Modules: []schema.Module{c.module}})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
