package probe

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tidemark-edge/tidemark/schema"
)

func TestEnded(t *testing.T) {
	long := append([]string{"/check"}, strings.Fields(strings.Repeat("--flag=value ", 20))...)
	for _, test := range []struct {
		command []string
		code    uint32
		said    string
		want    string
	}{
		{[]string{"/check"}, 0, "all is well", ""},
		{[]string{"/check"}, 3, "", "exec /check: exit code 3"},
		{[]string{"/check", "--fast"}, 3, "no pressure", "exec /check --fast: exit code 3: no pressure"},
		{[]string{"/check"}, 137, "", "exec /check: exit code 137, as by SIGKILL"},
		{[]string{"/check"}, 139, "core", "exec /check: exit code 139, as by SIGSEGV: core"},
		{[]string{"/check"}, 255, "", "exec /check: exit code 255"},
		{[]string{"sh", "-c", "true\n\tfalse\x00"}, 1, "", "exec sh -c true false: exit code 1"},
		{long, 1, "", "exec " + strings.Join(long, " ")[:maxCommand] + "…: exit code 1"},
	} {
		err := Ended(test.command, test.code, test.said)
		if test.want == "" && err != nil || test.want != "" && (err == nil || err.Error() != test.want) {
			t.Errorf("%q, %d: %v, want %s", test.command, test.code, err, test.want)
		}
	}
}

// What containerd and runc say is many words around the few that matter.
func TestFailedIsInPlainWords(t *testing.T) {
	const runc = "OCI runtime exec failed: exec failed: unable to start container process: "
	for said, want := range map[string]string{
		// of containerd 1.6 and of 2
		runc + `exec: "/check": stat /check: no such file or directory: unknown`:     "the image has no such program",
		runc + `exec: "/check": stat /check: no such file or directory`:              "the image has no such program",
		runc + `exec: "/check": executable file not found in $PATH: unknown`:         "the image has no such program in its PATH",
		runc + `exec: "/check": permission denied`:                                   "it is no program that the module's user may run",
		runc + `exec: "/check": stat /check: not a directory`:                        "it cannot be run: stat /check: not a directory",
		runc + "error executing setns process: exit status 1\n" + runc + ": unknown": "it cannot be run: error executing setns process: exit status 1 " + strings.TrimSpace(runc),
		// of others
		"OCI runtime exec failed: the container is gone": "it cannot be run: the container is gone",
		"OCI runtime exec failed: ":                      "it cannot be run: ",
		"no answer within 1s":                            "no answer within 1s",
	} {
		if got := Failed([]string{"/check"}, errors.New(said)).Error(); got != "exec /check: "+want {
			t.Errorf("%s:\n got %s\nwant exec /check: %s", said, got, want)
		}
	}
	if got := Failed([]string{"/check"}, errors.New(runc+strings.Repeat("x", 1000))).Error(); len(got) > 300 {
		t.Errorf("%d bytes", len(got))
	}
	gone := fmt.Errorf("%w: %sgone", schema.ErrNotAsked, runc)
	if err := Failed([]string{"/check"}, gone); !errors.Is(err, schema.ErrNotAsked) {
		t.Errorf("that it was not asked is lost: %v", err)
	}
	if err := Failed([]string{"/check"}, unix.EPIPE); !errors.Is(err, unix.EPIPE) {
		t.Errorf("what it wraps is lost: %v", err)
	}
}
