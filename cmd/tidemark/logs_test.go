package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal makes a pseudo-terminal: what is written to one end is read from the
// other.
func terminal(t *testing.T) (program, screen *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return program, screen
}

// What a module prints must not steer the terminal of who looks at it.
func TestLogsDoNotSteerATerminal(t *testing.T) {
	state := t.TempDir()
	if err := os.Mkdir(filepath.Join(state, "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(state, "logs", "m.log"), []byte("\x1b[31ma\x1b]52;c;eA==\x07b"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		"a^[]52;c;eA==^Gb":             {"m"},
		"\x1b[31ma\x1b]52;c;eA==\x07b": {"m", "--raw"},
	} {
		program, screen := terminal(t)
		cmd := newLogs()
		cmd.SetOut(program)
		cmd.SetArgs(append(args, "--state-dir", state))
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		n, err := screen.Read(b)
		if got := string(b[:n]); got != want || err != nil {
			t.Errorf("%v: %q, want %q (%v)", args, got, want, err)
		}
	}
}
