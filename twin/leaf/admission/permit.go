package admission

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tidemark-edge/tidemark/schema"
)

// reserved are the first tokens of subjects that nobody can be granted: they are
// Tidemark's own. What begins with $ or _ is NATS's and Tidemark's too.
var reserved = []string{"devices", "up", "messages", "fleet", "outbox"}

// maxSubject bounds a subject that a definition allows, in bytes.
const maxSubject = 1024

// Permits says whether the device's owner lets the identity of every module do
// what its definition allows it. What the owner does not grant is not given to a
// module in any case; this is how a person learns of it before anything changes.
func Permits(desired schema.Desired, grants schema.Grants) error {
	for _, m := range desired.Modules {
		if err := permits(m.Identity.Allow, grants); err != nil {
			return fmt.Errorf("module %s: identity: allow: %w", m.Name, err)
		}
	}
	return nil
}

func permits(allow schema.Allow, grants schema.Grants) error {
	for _, subject := range allow.Publish {
		if err := grantable(subject, grants.Publish); err != nil {
			return fmt.Errorf("publish %q: %w", subject, notGranted(err, "publish", subject))
		}
	}
	for _, subject := range allow.Subscribe {
		if err := grantable(subject, grants.Subscribe); err != nil {
			return fmt.Errorf("subscribe %q: %w", subject, notGranted(err, "subscribe", subject))
		}
	}
	for _, method := range allow.Call {
		if _, _, err := splitMethod(method); err != nil {
			return fmt.Errorf("call %q: %w", method, err)
		}
		if grants.NoCalls {
			return fmt.Errorf("call %q: modules of this device may not call each other; its owner may take grants: noCalls: true out of the agent's configuration", method)
		}
	}
	return nil
}

// granted is the part of allow that the grants cover.
func granted(allow schema.Allow, grants schema.Grants) schema.Allow {
	var some schema.Allow
	for _, subject := range allow.Publish {
		if grantable(subject, grants.Publish) == nil {
			some.Publish = append(some.Publish, subject)
		}
	}
	for _, subject := range allow.Subscribe {
		if grantable(subject, grants.Subscribe) == nil {
			some.Subscribe = append(some.Subscribe, subject)
		}
	}
	for _, method := range allow.Call {
		if _, _, err := splitMethod(method); err == nil && !grants.NoCalls {
			some.Call = append(some.Call, method)
		}
	}
	return some
}

// notGranted says of a subject that nothing is wrong with what the owner can do.
func notGranted(err error, verb, subject string) error {
	if err != errNotGranted {
		return err
	}
	return fmt.Errorf("%w; the device's owner may add %q to grants: %s in the agent's configuration", err, subject, verb)
}

var errNotGranted = errors.New("not granted on this device")

// grantable reports why a subject may not be given to a module: it could never
// be, or no grant covers it.
func grantable(subject string, grants []string) error {
	if !isPattern(subject) {
		return errors.New("not a subject of NATS")
	}
	first, _, _ := strings.Cut(subject, ".")
	switch {
	case first == "*" || first == ">":
		return errors.New("it would open the subjects of Tidemark and of NATS too: begin with a name")
	case strings.HasPrefix(first, "$") || strings.HasPrefix(first, "_") || slices.Contains(reserved, first):
		return fmt.Errorf("what is below %s is never granted", first)
	}
	for _, grant := range grants {
		if isPattern(grant) && covers(grant, subject) {
			return nil
		}
	}
	return errNotGranted
}

// covers reports whether every subject that the second pattern matches is one
// that the first does.
func covers(wide, narrow string) bool {
	w, n := strings.Split(wide, "."), strings.Split(narrow, ".")
	for i, token := range w {
		switch {
		case i >= len(n):
			return false
		case token == ">":
			return true
		case n[i] == ">":
			return false
		case token != "*" && token != n[i]:
			return false
		}
	}
	return len(w) == len(n)
}

// isPattern reports whether a subject, with wildcards or without, is one that
// every NATS server takes for what it looks like.
func isPattern(subject string) bool {
	if len(subject) > maxSubject {
		return false
	}
	tokens := strings.Split(subject, ".")
	for i, token := range tokens {
		switch {
		case token == "*" || token == ">" && i == len(tokens)-1:
		case token == "" || strings.ContainsFunc(token, notInToken):
			return false
		}
	}
	return true
}

// notInToken reports whether a character has no place in a token. Wildcards
// inside of one are none to NATS, and a trap for who reads.
func notInToken(r rune) bool { return r <= ' ' || r == 0x7f || r == '*' || r == '>' || r > 0x7f }

// splitMethod takes "<module>/<method>" apart; method may be "*".
func splitMethod(s string) (module, method string, err error) {
	module, method, _ = strings.Cut(s, "/")
	if schema.CheckName(module) != nil || method != "*" && schema.CheckName(method) != nil {
		return "", "", errors.New("want \"<module>/<method>\", or \"<module>/*\"")
	}
	return module, method, nil
}
