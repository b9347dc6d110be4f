package gitsource

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

// maxURLBytes bounds Repository.URL.
const maxURLBytes = 2048

// location is a repository's address, taken apart.
type location struct {
	kind string // one of the kinds
	path string // of a local repository, or on the host
	url  string // for http, as it was given
	user string // for ssh
	host string // for ssh, "host:port"
}

const (
	kindLocal = "local"
	kindHTTP  = "http"
	kindSSH   = "ssh"
)

// scpRE is user@host:path, the short form of ssh://.
var scpRE = regexp.MustCompile(`^(?:([^@/:\s]+)@)?([A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\]):([^:].*)$`)

// parseLocation reads Repository.URL. Credentials have no place in it: it is
// printed in errors and shown in the twin.
func parseLocation(s string) (location, error) {
	switch {
	case s == "":
		return location{}, errors.New("repository url is empty")
	case len(s) > maxURLBytes:
		return location{}, fmt.Errorf("repository url is longer than %d bytes", maxURLBytes)
	case strings.ContainsFunc(s, unicode.IsControl):
		return location{}, errors.New("repository url has control characters")
	case filepath.IsAbs(s):
		return location{kind: kindLocal, path: filepath.Clean(s)}, nil
	case strings.Contains(s, "://"):
		return parseURL(s)
	}
	m := scpRE.FindStringSubmatch(s)
	if m == nil {
		return location{}, fmt.Errorf("repository url %q: want https://, ssh://, user@host:path or an absolute path", s)
	}
	return location{kind: kindSSH, user: orGit(m[1]), host: net.JoinHostPort(strings.Trim(m[2], "[]"), "22"), path: m[3]}, nil
}

func parseURL(s string) (location, error) {
	u, err := url.Parse(s)
	if err != nil {
		return location{}, errors.New("repository url cannot be parsed") // the parser's error quotes a password
	}
	if _, secret := u.User.Password(); secret {
		return location{}, errors.New("repository url holds a password: put it into the file named by tokenFile")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return location{}, fmt.Errorf("repository url %q: a query or a fragment has no meaning here", s)
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
			return location{}, fmt.Errorf("repository url %q: want file:///path", s)
		}
		return location{kind: kindLocal, path: filepath.Clean(u.Path)}, nil
	case "http", "https":
		if u.Hostname() == "" {
			return location{}, fmt.Errorf("repository url %q has no host", s)
		}
		return location{kind: kindHTTP, url: strings.TrimRight(s, "/")}, nil
	case "ssh", "git+ssh":
		port := u.Port()
		if port == "" {
			port = "22"
		}
		path := u.Path
		if strings.HasPrefix(path, "/~") { // relative to a home directory, as Git has it
			path = path[1:]
		}
		if u.Hostname() == "" || strings.Trim(path, "/") == "" {
			return location{}, fmt.Errorf("repository url %q: want ssh://user@host/path", s)
		}
		return location{kind: kindSSH, user: orGit(u.User.Username()), host: net.JoinHostPort(u.Hostname(), port), path: path}, nil
	}
	return location{}, fmt.Errorf("repository url %q: %s is not supported; want https, http, ssh or file", s, u.Scheme)
}

func orGit(user string) string {
	if user == "" {
		return "git"
	}
	return user
}

// plainOverNetwork reports whether the address would carry credentials in the
// clear to another machine.
func (l location) plainOverNetwork() bool {
	u, err := url.Parse(l.url)
	if err != nil || u.Scheme != "http" {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() != "localhost" && (err != nil || !addr.IsLoopback())
}

// branchRE is the part of git check-ref-format that matters for a path and a
// protocol line.
var branchRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*$`)

func checkBranch(name string) error {
	if len(name) > 200 || !branchRE.MatchString(name) || strings.Contains(name, "..") || strings.HasSuffix(name, ".lock") {
		return fmt.Errorf("branch %q is not a branch name", name)
	}
	return nil
}
