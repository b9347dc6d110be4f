package output

import (
	"bytes"
	"unicode/utf8"
)

// maxTail bounds what Tail returns, in bytes.
const maxTail = 4 << 10

// Tail returns the last lines of what a module printed in its present or last
// run: at most that many lines and 4 KB, valid UTF-8 with nothing in it that
// could steer a terminal. Empty when there is nothing, or it cannot be read. It
// reads no more than 16 KB, from the disk.
func (f *Files) Tail(module string, lines int) string {
	if lines <= 0 {
		return ""
	}
	l, err := Open(f.Dir, module)
	if err != nil {
		return ""
	}
	defer l.Close()
	begin, err := l.Run()
	if err != nil {
		return ""
	}
	_, end, err := l.Span()
	if err != nil || end <= begin {
		return ""
	}
	const most = 4 * maxTail // control characters are longer than what stands for them
	from := max(begin, end-most)
	b := make([]byte, end-from)
	n, _ := l.ReadAt(b, from) // what cannot be read is not shown
	return lastLines(b[:n], lines, from > begin)
}

// lastLines makes b plain and cuts it to the last lines of at most maxTail
// bytes. torn says that b begins within a line.
func lastLines(b []byte, lines int, torn bool) string {
	text, _ := plain(b, true)
	text = bytes.TrimRight(text, "\n")
	if len(text) > maxTail {
		text, torn = text[len(text)-maxTail:], true
	}
	if torn {
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			text = text[i+1:]
		}
	}
	for i := len(text); lines > 0; lines-- {
		if i = bytes.LastIndexByte(text[:i], '\n'); i < 0 {
			break
		}
		if lines == 1 {
			text = text[i+1:]
		}
	}
	for len(text) > 0 && !utf8.RuneStart(text[0]) { // cut within a character
		text = text[1:]
	}
	return string(text)
}
