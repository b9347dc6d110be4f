package output

import (
	"io"
	"unicode"
	"unicode/utf8"
)

// Plain returns a writer that passes text on to w without what could steer a
// terminal. Colours are left out; other control characters are shown as ^X, as
// cat -v does; what is no UTF-8, or changes the direction of text, becomes U+FFFD.
// Close passes on what was held back of an incomplete character.
func Plain(w io.Writer) io.WriteCloser { return &plainWriter{w: w} }

type plainWriter struct {
	w    io.Writer
	rest []byte // of the last Write, incomplete
}

func (p *plainWriter) Write(b []byte) (int, error) {
	text, rest := plain(append(p.rest, b...), false)
	p.rest = append([]byte(nil), rest...)
	if _, err := p.w.Write(text); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (p *plainWriter) Close() error {
	text, _ := plain(p.rest, true)
	p.rest = nil
	_, err := p.w.Write(text)
	return err
}

// maxColour bounds the length of an escape sequence that sets colours.
const maxColour = 32

// plain returns b without what could steer a terminal. rest is what cannot be
// judged before more is known; with final there is none.
func plain(b []byte, final bool) (text, rest []byte) {
	text = make([]byte, 0, len(b))
	for len(b) > 0 {
		if c := b[0]; c == '\n' || c == '\t' || c >= ' ' && c < 0x7f {
			text, b = append(text, c), b[1:]
			continue
		}
		if !final && incomplete(b) {
			return text, b
		}
		switch c := b[0]; {
		case c == '\r' && len(b) > 1 && b[1] == '\n':
			b = b[1:]
		case c == 0x1b && colour(b) > 0:
			b = b[colour(b):]
		case c < ' ' || c == 0x7f:
			text, b = append(text, '^', c^0x40), b[1:]
		default:
			r, n := utf8.DecodeRune(b)
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
				r = utf8.RuneError
			}
			text, b = utf8.AppendRune(text, r), b[n:]
		}
	}
	return text, nil
}

// incomplete reports whether more bytes decide what b begins with.
func incomplete(b []byte) bool {
	switch {
	case b[0] == '\r':
		return len(b) == 1
	case b[0] == 0x1b:
		return colour(b) < 0
	}
	return !utf8.FullRune(b)
}

// colour is the length of the sequence that sets colours (SGR, ECMA-48) at the
// begin of b; 0 when there is none, -1 when b ends within what may be one.
func colour(b []byte) int {
	for i, c := range b[:min(len(b), maxColour)] {
		switch {
		case i == 0 && c == 0x1b, i == 1 && c == '[':
		case i >= 2 && (c >= '0' && c <= '9' || c == ';' || c == ':'):
		case i >= 2 && c == 'm':
			return i + 1
		default:
			return 0
		}
	}
	if len(b) >= maxColour {
		return 0
	}
	return -1
}
