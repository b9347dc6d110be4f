package gitsource

import (
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/schema"
)

func TestConfigurationThatCannotWork(t *testing.T) {
	good := signed("https://example.com/fleet.git")
	for name, c := range map[string]struct {
		change func(*schema.Repository)
		says   string
	}{
		"no url":         {func(r *schema.Repository) { r.URL = "" }, "empty"},
		"relative":       {func(r *schema.Repository) { r.URL = "fleet" }, "absolute path"},
		"git":            {func(r *schema.Repository) { r.URL = "git://example.com/fleet" }, "not supported"},
		"ext":            {func(r *schema.Repository) { r.URL = "ext::sh -c date" }, "want https"},
		"password":       {func(r *schema.Repository) { r.URL = "https://u:hunter2@example.com/x" }, "tokenFile"},
		"bad url":        {func(r *schema.Repository) { r.URL = "https://u:hunter2@exa mple.com/x" }, "cannot be parsed"},
		"option as host": {func(r *schema.Repository) { r.URL = "git@-oProxyCommand=x:fleet" }, "want https"},
		"query":          {func(r *schema.Repository) { r.URL += "?x=y" }, "query"},
		"long":           {func(r *schema.Repository) { r.URL += strings.Repeat("x", 3000) }, "longer"},
		"branch":         {func(r *schema.Repository) { r.Branch = "../../etc" }, "not a branch name"},
		"branch dots":    {func(r *schema.Repository) { r.Branch = "a..b" }, "not a branch name"},
		"verify":         {func(r *schema.Repository) { r.Verify = "" }, "want signed or off"},
		"ssh key":        {func(r *schema.Repository) { r.URL = "git@example.com:fleet" }, "sshKeyFile"},
		"known hosts": {func(r *schema.Repository) {
			r.URL, r.SSHKeyFile = "git@example.com:fleet", "key"
		}, "knownHostsFile"},
		"token in the clear": {func(r *schema.Repository) {
			r.URL, r.TokenFile = "http://example.com/fleet", "token"
		}, "use https"},
	} {
		t.Run(name, func(t *testing.T) {
			repo := good
			c.change(&repo)
			_, err := Open(t.TempDir(), repo, sawSignature{})
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v does not say %q", err, c.says)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v tells the password", err)
			}
		})
	}
	if _, err := Open(t.TempDir(), good, nil); err == nil || !strings.Contains(err.Error(), "allowedSigners") {
		t.Errorf("signed without a verifier: %v", err)
	}
}

func TestParseLocation(t *testing.T) {
	for url, want := range map[string]location{
		"/srv/fleet.git":                  {kind: kindLocal, path: "/srv/fleet.git"},
		"file:///srv/fleet.git":           {kind: kindLocal, path: "/srv/fleet.git"},
		"https://example.com/fleet.git/":  {kind: kindHTTP, url: "https://example.com/fleet.git"},
		"http://127.0.0.1:3000/a/b":       {kind: kindHTTP, url: "http://127.0.0.1:3000/a/b"},
		"git@example.com:org/fleet.git":   {kind: kindSSH, user: "git", host: "example.com:22", path: "org/fleet.git"},
		"example.com:fleet":               {kind: kindSSH, user: "git", host: "example.com:22", path: "fleet"},
		"me@[::1]:fleet":                  {kind: kindSSH, user: "me", host: "[::1]:22", path: "fleet"},
		"ssh://me@example.com:2222/fleet": {kind: kindSSH, user: "me", host: "example.com:2222", path: "/fleet"},
		"ssh://example.com/~me/fleet":     {kind: kindSSH, user: "git", host: "example.com:22", path: "~me/fleet"},
	} {
		got, err := parseLocation(url)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", url, got, err, want)
		}
	}
}
