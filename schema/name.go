package schema

import (
	"fmt"
	"regexp"
)

// nameRE is a DNS label (RFC 1123): a name is a NATS subject token, a directory
// name, a label value and a path element, so it is the narrowest of the four.
var nameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckName reports why s cannot name a device or a module.
func CheckName(s string) error {
	if !nameRE.MatchString(s) {
		return fmt.Errorf("name %q: want 1 to 63 of a-z, 0-9 and -, starting and ending with a letter or digit", s)
	}
	return nil
}

// Address is the identity of a device, or of one of its modules when module is
// not empty: /devices/<device> or /devices/<device>/modules/<module>.
func Address(device, module string) string {
	if module == "" {
		return "/devices/" + device
	}
	return "/devices/" + device + "/modules/" + module
}
