package schema

import (
	"strconv"
	"strings"
)

// maxAllowed is how many subjects, and how many methods, one module may be
// allowed.
const maxAllowed = 64

// reservedSubjects are the first tokens of the subjects that are Tidemark's own.
var reservedSubjects = []string{"devices", "up", "messages", "fleet", "outbox"}

// checkAllow notes what no device permits, and methods of modules that there are
// not.
func checkAllow(d Desired, m Module, path []string, p *problems) {
	allow := m.Identity.Allow
	checkSubjects(allow.Publish, extend(path, "publish"), p)
	checkSubjects(allow.Subscribe, extend(path, "subscribe"), p)
	checkCount(len(allow.Call), maxAllowed, extend(path, "call"), p)
	for i, method := range allow.Call {
		module, _, _ := strings.Cut(method, "/")
		at := extend(path, "call", strconv.Itoa(i))
		checkDeclared(d, module, at, p)
		if module == m.Name {
			p.add(at, "a module needs nobody to call itself: name another module")
		}
	}
}

func checkSubjects(subjects []string, path []string, p *problems) {
	checkCount(len(subjects), maxAllowed, path, p)
	for i, s := range subjects {
		checkSubject(s, extend(path, strconv.Itoa(i)), p)
	}
}

// checkSubject notes a subject that would open Tidemark's own, or NATS's: by its
// name, or by a wildcard that takes it in.
func checkSubject(subject string, path []string, p *problems) {
	first, _, _ := strings.Cut(subject, ".")
	if first == "*" {
		p.add(path, "%s would open the subjects of Tidemark and NATS too: begin with a name", subject)
	}
	for _, reserved := range reservedSubjects {
		if first == reserved {
			p.add(path, "%s is below %s, which is Tidemark's own: a route, identity.allow.call or a twin does what is meant", subject, reserved)
		}
	}
}
