package signing

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// gitNamespace is what git signs for (PROTOCOL.sshsig).
const gitNamespace = "git"

// signer is one line of an allowed signers file.
type signer struct {
	line       int
	principals string // as written, without quotes
	key        []byte // SSH wire form
	git        bool   // namespaces allow git
	after      time.Time
	before     time.Time // zero: no end
}

// allows reports why the signer may not sign a commit at that time.
func (s *signer) allows(at time.Time) error {
	const stamp = "2006-01-02T15:04:05Z"
	switch {
	case !s.git:
		return fmt.Errorf("is allowed by line %d, but not in namespace git", s.line)
	case !s.after.IsZero() && at.Before(s.after):
		return fmt.Errorf("is allowed by line %d only after %s, and the commit is of %s", s.line, s.after.UTC().Format(stamp), at.UTC().Format(stamp))
	case !s.before.IsZero() && at.After(s.before):
		return fmt.Errorf("is allowed by line %d only before %s, and the commit is of %s or later", s.line, s.before.UTC().Format(stamp), at.UTC().Format(stamp))
	}
	return nil
}

// parseSigners reads an allowed signers file. The error starts with the line
// number.
func parseSigners(data []byte) ([]signer, error) {
	var out []signer
	for i, line := range bytes.Split(data, []byte("\n")) {
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		s, err := parseSigner(text)
		if err != nil {
			return nil, fmt.Errorf("%d: %w", i+1, err)
		}
		s.line = i + 1
		out = append(out, s)
	}
	return out, nil
}

func parseSigner(text string) (signer, error) {
	principals, rest, err := cutPrincipals(text)
	if err != nil {
		return signer{}, err
	}
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(rest))
	if err != nil {
		return signer{}, fmt.Errorf("want \"principals [options] key-type key\": %w", err)
	}
	if err := checkKey(key); err != nil {
		return signer{}, err
	}
	s := signer{principals: principals, key: key.Marshal(), git: true}
	for _, option := range options {
		if err := s.set(option); err != nil {
			return signer{}, err
		}
	}
	return s, nil
}

// cutPrincipals takes the first field, which may be quoted.
func cutPrincipals(text string) (principals, rest string, err error) {
	var ok bool
	if quoted, found := strings.CutPrefix(text, `"`); found {
		principals, rest, ok = strings.Cut(quoted, `"`)
		ok = ok && strings.IndexAny(rest, " \t") == 0
	} else if i := strings.IndexAny(text, " \t"); i > 0 {
		principals, rest, ok = text[:i], text[i:], true
	}
	switch {
	case !ok:
		return "", "", errors.New(`want "principals [options] key-type key"`)
	case principals == "" || strings.ContainsAny(principals, "\"\x00"):
		return "", "", errors.New("principals are empty or oddly quoted")
	}
	return principals, strings.TrimSpace(rest), nil
}

// set applies one option. An unknown one may narrow what the line allows, so it
// is refused.
func (s *signer) set(option string) error {
	name, value, hasValue := strings.Cut(option, "=")
	quoted := len(value) >= 2 && value[0] == '"' && value[len(value)-1] == '"'
	if hasValue && !quoted {
		return fmt.Errorf("option %s: want a value in double quotes", name)
	}
	if quoted {
		value = value[1 : len(value)-1]
	}
	var err error
	switch strings.ToLower(name) {
	case "cert-authority":
		return errors.New("cert-authority is not supported: list the signers' own keys")
	case "namespaces":
		s.git = matchesList(gitNamespace, value)
	case "valid-after":
		s.after, err = parseStamp(value)
	case "valid-before":
		s.before, err = parseStamp(value)
	default:
		return fmt.Errorf("unknown option %q", name)
	}
	if err == nil && !s.before.IsZero() && s.before.Before(s.after) {
		err = errors.New("the end is before the beginning")
	}
	if err != nil {
		return fmt.Errorf("option %s: %w", name, err)
	}
	return nil
}

// parseStamp reads YYYYMMDD or YYYYMMDDHHMM[SS], in UTC with a Z behind it and
// else in the machine's time zone, as ssh-keygen does.
func parseStamp(s string) (time.Time, error) {
	zone := time.Local
	digits, utc := strings.CutSuffix(s, "Z")
	if utc {
		zone = time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(layout) == len(digits) {
			if t, err := time.ParseInLocation(layout, digits, zone); err == nil {
				return t, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("time %q: want YYYYMMDD[Z] or YYYYMMDDHHMM[SS][Z]", s)
}

// matchesList is match_pattern_list of OpenSSH: any pattern, and none with "!".
func matchesList(s, list string) bool {
	hit := false
	for _, pattern := range strings.Split(list, ",") {
		pattern, negated := strings.CutPrefix(pattern, "!")
		if strings.ContainsAny(pattern, `[\`) {
			continue // characters to OpenSSH, special to path.Match, and in no namespace
		}
		if ok, err := path.Match(pattern, s); err == nil && ok {
			if negated {
				return false
			}
			hit = true
		}
	}
	return hit
}

// minRSABits is what OpenSSH asks of an RSA key, doubled.
const minRSABits = 2048

// checkKey refuses kinds of keys that cannot sign commits safely here.
func checkKey(key ssh.PublicKey) error {
	if _, ok := key.(*ssh.Certificate); ok {
		return errors.New("SSH certificates are not supported: use the signer's own key")
	}
	kinds := []string{ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoSKECDSA256, ssh.KeyAlgoRSA}
	if !slices.Contains(kinds, key.Type()) {
		return fmt.Errorf("key type %s is not supported: use ssh-ed25519", key.Type())
	}
	if c, ok := key.(ssh.CryptoPublicKey); ok {
		if r, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && r.N.BitLen() < minRSABits {
			return fmt.Errorf("RSA key of %d bits: want at least %d, or ssh-ed25519", r.N.BitLen(), minRSABits)
		}
	}
	return nil
}
