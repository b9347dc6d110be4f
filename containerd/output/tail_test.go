package output

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestTail(t *testing.T) {
	long := strings.Repeat("é", maxTail)
	for _, c := range []struct {
		name    string
		printed string
		lines   int
		want    string
	}{
		{"nothing", "", 3, ""},
		{"fewer lines", "one\n", 3, "one"},
		{"more lines", "one\ntwo\nthree\n", 2, "two\nthree"},
		{"the last line has no end", "one\ntwo\nthree", 2, "two\nthree"},
		{"no lines asked for", "one\n", 0, ""},
		{"empty lines at the end", "one\n\n\n", 1, "one"},
		{"colours", "\x1b[1;31mERROR\x1b[0m it broke\r\n", 1, "ERROR it broke"},
		{"a terminal's commands", "a\x1b]0;owned\x07b\x1b[2Jc\rd\x00", 1, "a^[]0;owned^Gb^[[2Jc^Md^@"},
		{"no UTF-8", "a\xff\xc3b", 1, "a\ufffd\ufffdb"},
		{"other controls", "a\u0085b\u202ec\u2066d\u2028e", 1, "a\ufffdb\ufffdc\ufffdd\ufffde"},
		{"a long line", long, 1, long[len(long)-maxTail:]},
		{"a long line before", long + "\nlast", 5, "last"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := &Files{Dir: t.TempDir()}
			m := start(t, files, "m")
			_, err := m.file.WriteString(c.printed)
			must(t, err)
			got := files.Tail("m", c.lines)
			if got != c.want {
				t.Errorf("%.200q, want %.200q", got, c.want)
			}
			if len(got) > maxTail || !utf8.ValidString(got) {
				t.Errorf("%d bytes, valid: %v", len(got), utf8.ValidString(got))
			}
		})
	}
}

func TestTailIsOfThePresentOrLastRun(t *testing.T) {
	files := &Files{Dir: t.TempDir(), Max: testMax}
	if got := files.Tail("m", 5); got != "" {
		t.Errorf("before all: %q", got)
	}
	m := start(t, files, "m")
	fmt.Fprintln(m.file, "first run")
	files.look("m")
	m = start(t, files, "m")
	if got := files.Tail("m", 5); got != "" {
		t.Errorf("it has printed nothing yet, but %q", got)
	}
	fmt.Fprintln(m.file, "second run")
	for range 2 { // an agent, and its successor
		if got := files.Tail("m", 5); got != "second run" {
			t.Errorf("%q", got)
		}
		files = &Files{Dir: files.Dir, Max: testMax}
	}
	for range 10 { // the begin of the run is cut off
		m.print(testMax / 2)
		files.look("m")
	}
	if got := files.Tail("m", 2); got != fmt.Sprintf("line %d of what the module prints\nline %d of what the module prints", m.next-2, m.next-1) {
		t.Errorf("%q", got)
	}
	must(t, os.Remove(logPath(files.Dir, "m")))
	if got := files.Tail("m", 5); got != "" {
		t.Errorf("of what is gone: %q", got)
	}
}

// What is written in pieces is the same as what is written at once.
func FuzzPlain(f *testing.F) {
	f.Add([]byte("a\x1b[1mb\x1b[0m\r\n\x1b]0;x\x07é\xe2\x82"), 3)
	f.Add([]byte("\x1b["+strings.Repeat("1", 40)+"m"), 1)
	f.Add([]byte("\r\r\n\r"), 1)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		whole, _ := plain(b, true)
		if !utf8.Valid(whole) {
			t.Errorf("%q", whole)
		}
		for _, c := range string(whole) {
			if c < ' ' && c != '\n' && c != '\t' || c >= 0x7f && c < 0xa0 {
				t.Errorf("%q in %q", c, whole)
			}
		}
		var pieces strings.Builder
		w := Plain(&pieces)
		for rest := b; len(rest) > 0; {
			k := min(max(n, 1), len(rest))
			if _, err := w.Write(rest[:k]); err != nil {
				t.Fatal(err)
			}
			rest = rest[k:]
		}
		must(t, w.Close())
		if pieces.String() != string(whole) {
			t.Errorf("%q in pieces is %q, at once %q", b, pieces.String(), whole)
		}
	})
}

func TestLast(t *testing.T) {
	files := &Files{Dir: t.TempDir(), Max: testMax}
	m := start(t, files, "m")
	m.print(200 << 10) // some chunks
	l, err := Open(files.Dir, "m")
	must(t, err)
	defer l.Close()
	for _, n := range []int{0, 1, 2, 100, 3000, m.next, m.next + 1} {
		from, err := l.Last(n, 0)
		must(t, err)
		c := &counter{t: t, next: max(0, m.next-n)}
		if _, _, err := l.Copy(c, from); err != nil || c.next != m.next {
			t.Errorf("last %d: up to %d of %d: %v", n, c.next, m.next, err)
		}
	}
}
