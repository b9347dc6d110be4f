// Package probe asks a module once, over the network, whether it works, and puts
// into words what a command said that was run beside it. It knows nothing of
// containers: who calls says how to reach the module's loopback, and runs the
// command.
//
// What a module answers is untrusted: no more than a line of it is read, it is
// not followed anywhere, and no longer waited for than the context allows.
package probe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"unicode"
)

// Dialer connects to a port of a module's loopback.
type Dialer func(ctx context.Context, port int) (net.Conn, error)

// MaxAnswer is how much of an answer an error quotes, in bytes.
const MaxAnswer = 100

// Quote makes one printable line of at most MaxAnswer bytes out of what a
// module answered.
func Quote(answer []byte) string { return quote(string(answer), MaxAnswer) }

// quote makes one printable line of at most that many bytes.
func quote(text string, most int) string {
	var line strings.Builder
	for _, word := range strings.FieldsFunc(strings.ToValidUTF8(text, "?"), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsGraphic(r)
	}) {
		if line.Len() > 0 {
			word = " " + word
		}
		for _, r := range word {
			if line.Len()+len(string(r)) > most {
				return line.String()
			}
			line.WriteRune(r)
		}
	}
	return line.String()
}

// reason shortens a network error to what happened: where is said already.
func reason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, hungUp := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, hungUp) {
			return errors.New("it hung up without an answer")
		}
	}
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return context.DeadlineExceeded
	}
	return err
}

// LastLine is the last line with anything on it, quoted.
func LastLine(output []byte) string {
	output = bytes.TrimSpace(output)
	return Quote(output[bytes.LastIndexByte(output, '\n')+1:])
}
