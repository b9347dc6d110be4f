package probe

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/schema"
)

// Ended says how a command ended that was run in a module's container: nil with
// exit code 0. said is the last line that it printed, if any.
func Ended(command []string, code uint32, said string) error {
	if code == 0 {
		return nil
	}
	how := fmt.Sprintf("exit code %d", code)
	if code > signalled {
		if name := unix.SignalName(unix.Signal(code - signalled)); name != "" {
			how += ", as by " + name
		}
	}
	if said != "" {
		how += ": " + said
	}
	return fmt.Errorf("%s: %s", title(command), how)
}

// signalled is added to the number of the signal that ended a process.
const signalled = 128

// Failed says that a command could not be asked, or did not answer, and why: err,
// or what is to be understood by it. Runtimes have many words around the few that
// matter.
func Failed(command []string, err error) error {
	text := err.Error()
	_, reason, found := strings.Cut(text, "OCI runtime exec failed: ")
	if !found || errors.Is(err, schema.ErrNotAsked) {
		return fmt.Errorf("%s: %w", title(command), err)
	}
	reason = strings.TrimSuffix(reason, ": unknown") // gRPC's word for an error without a class
	for _, words := range []string{"exec failed: ", "unable to start container process: ", "exec: " + strconv.Quote(command[0]) + ": "} {
		reason = strings.TrimPrefix(reason, words)
	}
	switch {
	case strings.HasSuffix(reason, "executable file not found in $PATH"):
		reason = "the image has no such program in its PATH"
	case strings.HasSuffix(reason, unix.ENOENT.Error()):
		reason = "the image has no such program"
	case strings.HasSuffix(reason, unix.EACCES.Error()):
		reason = "it is no program that the module's user may run"
	default:
		reason = "it cannot be run: " + quote(reason, maxReason)
	}
	return fmt.Errorf("%s: %s", title(command), reason)
}

// Bounds on what an error quotes, in bytes.
const (
	maxCommand = 80  // of a command
	maxReason  = 200 // of a runtime's reason
)

// title is what an error about a command begins with: as one types it, and only
// the beginning of a long one.
func title(command []string) string {
	whole := strings.Join(command, " ")
	line := quote(whole, maxCommand)
	if len(whole) > maxCommand {
		line += "…"
	}
	return "exec " + line
}
