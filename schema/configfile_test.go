package schema_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

func writeConfig(t testing.TB, source string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.cue")
	if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const leastAgent = `device: "hannover01"
repository: {url: "https://git.example.com/fleet.git", verify: "off"}
`

func TestAgentConfigDefaults(t *testing.T) {
	got, err := schema.LoadAgentConfig(writeConfig(t, leastAgent), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := schema.AgentConfig{
		Device:      "hannover01",
		StateDir:    "/var/lib/tidemark",
		RunDir:      "/run/tidemark",
		Repository:  schema.Repository{URL: "https://git.example.com/fleet.git", Branch: "main", Poll: schema.Duration(time.Minute), Verify: schema.VerifyOff},
		Images:      []schema.ImageRule{},
		HostNetwork: []string{},
		Containerd: schema.ContainerdConfig{
			Address: "/run/containerd/containerd.sock", Namespace: "tidemark", Snapshotter: "overlayfs", Runtime: "io.containerd.runc.v2",
		},
		Leaf:   schema.LeafConfig{Listen: "127.0.0.1:4222"},
		Outbox: schema.OutboxConfig{MaxBytes: 256 << 20, TTL: schema.Duration(2 * time.Hour)},
		Disk:   schema.DiskConfig{Reserve: 128 << 20},
		Logs:   schema.LogsConfig{MaxBytes: 4 << 20},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestHubConfigDefaults(t *testing.T) {
	got, err := schema.LoadHubConfig(writeConfig(t, `repository: {url: "/srv/fleet.git", verify: "off"}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := schema.HubConfig{
		StateDir:   "/var/lib/tidemark-hub",
		Repository: schema.Repository{URL: "/srv/fleet.git", Branch: "main", Poll: schema.Duration(time.Minute), Verify: schema.VerifyOff},
		Listen:     "127.0.0.1:4223",
		LeafListen: "0.0.0.0:7422",
		Streams:    schema.HubStreamsSpec{MaxBytes: 1 << 30, Replicas: 1},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestConfigPaths: files are relative to the configuration, not to where the
// daemon was started.
func TestConfigPaths(t *testing.T) {
	path := writeConfig(t, `
_keys: ["cosign.pub", "/etc/keys/b.pub"]
device: "d1"
stateDir: "state"
repository: {url: "git@git.example.com:fleet.git", verify: "signed", allowedSigners: "../signers", sshKeyFile: "id", path: "sites/a/d1", poll: "15s"}
images: [{name: "ours", match: "registry.example.com/**", keys: _keys}]
registries: "registry.example.com:5000": {caFile: "ca.pem", passwordFile: "pw"}
hostMounts: ["/dev/serial"]
hostNetwork: ["*"]
outbox: maxBytes: 64Mi
hub: {url: "tls://hub.example.com:7422", caFile: "hub.pem"}
`)
	c, err := schema.LoadAgentConfig(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	for _, x := range []struct{ got, want string }{
		{c.StateDir, dir + "/state"},
		{c.Repository.AllowedSigners, filepath.Join(dir, "../signers")},
		{c.Repository.SSHKeyFile, dir + "/id"},
		{c.Repository.Path, "sites/a/d1"},
		{c.Images[0].Keys[0], dir + "/cosign.pub"},
		{c.Images[0].Keys[1], "/etc/keys/b.pub"},
		{c.Registries["registry.example.com:5000"].CAFile, dir + "/ca.pem"},
		{c.HostMounts[0], "/dev/serial"},
		{c.Hub.CAFile, dir + "/hub.pem"},
		{c.Containerd.Address, "/run/containerd/containerd.sock"},
	} {
		if x.got != x.want {
			t.Errorf("got %s, want %s", x.got, x.want)
		}
	}
	if c.Outbox.MaxBytes != 64<<20 || c.Repository.Poll != schema.Duration(15*time.Second) {
		t.Errorf("got %+v", c)
	}
}

func TestConfigOverrides(t *testing.T) {
	path := writeConfig(t, leastAgent+`hub: url: "nats-leaf://old:7422"`+"\n")
	c, err := schema.LoadAgentConfig(path, map[string]string{
		"hub.url":                               "tls://new:7422",
		"repository.poll":                       "5s",
		"outbox.maxBytes":                       "1Gi",
		"hostNetwork":                           `["proxy"]`,
		"logs.maxBytes":                         "64Ki",
		"disk.reserve":                          "0",
		"containerd.namespace":                  "other",
		`registries."localhost:5000".plainHttp`: "true",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Hub.URL != "tls://new:7422" || c.Repository.Poll != schema.Duration(5*time.Second) || c.Outbox.MaxBytes != 1<<30 || c.Logs.MaxBytes != 64<<10 || c.Disk.Reserve != 0 ||
		!reflect.DeepEqual(c.HostNetwork, []string{"proxy"}) || c.Containerd.Namespace != "other" || !c.Registries["localhost:5000"].PlainHTTP {
		t.Errorf("got %+v", c)
	}
	for override, want := range map[string]string{
		"hub.ur":      "hub.ur: override: no such value",
		"nonsense":    "no such value",
		"device.x":    "no such value",
		"..":          "no such value",
		"#x":          "no such value",
		"images":      `images: override: "§" does not parse: want list`,
		"hub.url":     "hub.url: invalid value",
		"outbox.ttl":  "outbox.ttl: a duration is a number",
		"hostNetwork": "does not parse",
	} {
		_, err := schema.LoadAgentConfig(path, map[string]string{override: "§"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", override, err, want)
		}
	}
	for override, want := range map[string]string{
		"logs.maxBytes=1Ki":   "logs.maxBytes: 1024 bytes is not within 64Ki and 1Gi",
		"outbox.maxBytes=1Ki": "outbox.maxBytes: 1024 bytes is not within 4Mi and 1Ti",
		"outbox.ttl=1ms":      "outbox.ttl: 1ms is not within 1s and 8760h0m0s",
		"disk.reserve=2Ti":    "disk.reserve: 2199023255552 bytes is not within 0 and 1Ti",
		"repository.poll=1ms": "repository.poll: 1ms is not within 1s and 24h0m0s",
	} {
		path, value, _ := strings.Cut(override, "=")
		_, err := schema.LoadAgentConfig(writeConfig(t, leastAgent), map[string]string{path: value})
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("--set %s: got %v, want %s", override, err, want)
		}
	}
}

// The ends of each range are within it.
func TestConfigBounds(t *testing.T) {
	for _, source := range []string{
		`repository: poll: "1s"
outbox: {maxBytes: "4Mi", ttl: "1s"}
disk: reserve: 0
logs: maxBytes: "64Ki"`,
		`repository: poll: "24h"
outbox: {maxBytes: "1Ti", ttl: "8760h"}
disk: reserve: "1Ti"
logs: maxBytes: "1Gi"`,
	} {
		if _, err := schema.LoadAgentConfig(writeConfig(t, leastAgent+source), nil); err != nil {
			t.Error(err)
		}
	}
	_, err := schema.LoadHubConfig(writeConfig(t, `repository: {url: "/srv/fleet.git", verify: "off", poll: "1ms"}`), nil)
	if err == nil || !strings.HasSuffix(err.Error(), ":1:52: repository.poll: 1ms is not within 1s and 24h0m0s") {
		t.Errorf("got %v", err)
	}
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]struct{ source, want string }{
		"empty":         {"", "device: field is required but not present"},
		"syntax":        {"device: \"x\"\nrepository: {", "agent.cue:2:14: expected"},
		"typo":          {leastAgent + "stateDirr: \"x\"\n", `agent.cue:3:1: stateDirr: field not allowed: is stateDir meant?`},
		"nested typo":   {leastAgent + "outbox: tll: \"1h\"\n", `agent.cue:3:9: outbox.tll: field not allowed: is tls or ttl meant?`},
		"no verify":     {"device: \"a\"\nrepository: url: \"/x\"\n", "agent.cue:2:1: repository.verify: field is required but not present"},
		"no signers":    {"device: \"a\"\nrepository: {url: \"/x\", verify: \"signed\"}\n", "repository.allowedSigners: field is required but not present"},
		"bad verify":    {"device: \"a\"\nrepository: {url: \"/x\", verify: \"yes\"}\n", `repository.verify: "yes" is none of "off", "signed"`},
		"password":      {"device: \"a\"\nrepository: {url: \"https://u:p@x/y\", verify: \"off\"}\n", "agent.cue:2:14: repository.url"},
		"bad duration":  {leastAgent + "outbox: ttl: \"soon\"\n", "agent.cue:3:9: outbox.ttl: a duration is a number"},
		"bad size":      {leastAgent + "outbox: maxBytes: \"1MB\"\n", "agent.cue:3:9: outbox.maxBytes: a size is a number of bytes"},
		"few logs":      {leastAgent + "logs: maxBytes: 64Ki-1\n", "agent.cue:3:7: logs.maxBytes: 65535 bytes is not within 64Ki and 1Gi"},
		"many logs":     {leastAgent + "\nlogs: {\n\tmaxBytes: \"2Gi\"\n}\n", "agent.cue:5:2: logs.maxBytes: 2147483648 bytes is not within 64Ki and 1Gi"},
		"bad logs":      {leastAgent + "logs: maxBytes: \"4MB\"\n", "agent.cue:3:7: logs.maxBytes: a size is a number of bytes"},
		"often":         {leastAgent + "repository: poll: \"999ms\"\n", "agent.cue:3:13: repository.poll: 999ms is not within 1s and 24h0m0s"},
		"always":        {leastAgent + "repository: poll: \"0s\"\n", "agent.cue:3:13: repository.poll: 0s is not within 1s and 24h0m0s"},
		"seldom":        {leastAgent + "repository: {\n\tpoll: \"25h\"\n}\n", "agent.cue:4:2: repository.poll: 25h0m0s is not within 1s and 24h0m0s"},
		"no outbox":     {leastAgent + "outbox: maxBytes: 0\n", "agent.cue:3:9: outbox.maxBytes: 0 bytes is not within 4Mi and 1Ti"},
		"small outbox":  {leastAgent + "outbox: maxBytes: 4Mi-1\n", "agent.cue:3:9: outbox.maxBytes: 4194303 bytes is not within 4Mi and 1Ti"},
		"large outbox":  {leastAgent + "outbox: maxBytes: \"2Ti\"\n", "agent.cue:3:9: outbox.maxBytes: 2199023255552 bytes is not within 4Mi and 1Ti"},
		"no ttl":        {leastAgent + "outbox: ttl: \"0s\"\n", "agent.cue:3:9: outbox.ttl: 0s is not within 1s and 8760h0m0s"},
		"long ttl":      {leastAgent + "outbox: ttl: \"8761h\"\n", "agent.cue:3:9: outbox.ttl: 8761h0m0s is not within 1s and 8760h0m0s"},
		"large reserve": {leastAgent + "disk: reserve: 1Ti+1\n", "agent.cue:3:7: disk.reserve: 1099511627777 bytes is not within 0 and 1Ti"},
		"bad reserve":   {leastAgent + "disk: reserve: -1\n", "agent.cue:3:7: disk.reserve: a size is a number of bytes"},
		"typo in disk":  {leastAgent + "disk: reserved: \"1Gi\"\n", "agent.cue:3:7: disk.reserved: field not allowed: is reserve meant?"},
		"no keys":       {leastAgent + "images: [{name: \"x\", match: \"**\", keys: []}]\n", "images.0.keys"},
		"import":        {"import \"example.com/x\"\n" + leastAgent + "_x: x.y\n", "agent.cue:1:8: import \"example.com/x\": a configuration is one file"},
		"not complete":  {leastAgent + "stateDir: string\n", "agent.cue:3:11: stateDir: incomplete value string"},
		"other daemon":  {leastAgent + "leafListen: \"0.0.0.0:7422\"\n", "agent.cue:3:1: leafListen: field not allowed"},
		"embed":         {"@extern(embed)\n\npackage x\n" + leastAgent, "agent.cue:1:1: @extern(embed)"},
		"not utf-8":     {leastAgent + "stateDir: \"\xff\"\n", "agent.cue:3"},
		"binary":        {"\x00\x01\x02", "agent.cue:1:1"},
		"a list":        {"[1, 2]", "agent.cue"},
		"a string":      {`"x"`, "agent.cue"},
		"contradiction": {leastAgent + "device: \"other\"\n", "device: conflicting values"},
		"too large":     {strings.Repeat("// x\n", 60_000), "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := schema.LoadAgentConfig(writeConfig(t, c.source), nil)
			var invalid *schema.InvalidError
			if !errors.As(err, &invalid) {
				t.Fatalf("got %v, want an InvalidError", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := schema.LoadAgentConfig("/nonexistent/agent.cue", nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func FuzzAgentConfig(f *testing.F) {
	f.Add(leastAgent)
	f.Add(leastAgent + "hub: url: \"tls://x:1\"\nimages: [{name: \"x\", match: \"**\", keys: [\"a\"]}]\n")
	f.Fuzz(func(t *testing.T, source string) {
		if len(source) > 4096 || strings.Contains(source, "import") || strings.Contains(source, "for") {
			return // costs are not bounded here: the file is the owner's
		}
		c, err := schema.LoadAgentConfig(writeConfig(t, source), nil)
		if err == nil && (c.Device == "" || c.Repository.URL == "" || c.StateDir == "") {
			t.Errorf("accepted: %+v", c)
		}
	})
}

// TestConfigErrorsRepeatNoSecret: who names the file of a key or of a password as the
// configuration is told so without what is in it, which goes to a log.
func TestConfigErrorsRepeatNoSecret(t *testing.T) {
	const secret = "SUAKZ7NYBG4RKQHT6C3EX5JWVD2FOMLPIA"
	for _, content := range []string{secret, secret + "\n", "device:" + secret, "user: 7" + secret, "x." + secret, "a-" + secret, `{` + secret + `}`,
		"-----BEGIN NATS USER JWT-----\n" + secret + "\n------END NATS USER JWT------\n", leastAgent + secret + "\n"} {
		_, err := schema.LoadAgentConfig(writeConfig(t, content), nil)
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("of %q: %v", content, err)
		}
		var invalid *schema.InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("of %q: %v is no InvalidError", content, err)
		}
	}
}
