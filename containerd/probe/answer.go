package probe

import (
	"cmp"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// keptAnswer is how much is kept of the end of what a command prints, in bytes.
const keptAnswer = 4 * MaxAnswer

// Answer catches what a command prints on each of its two streams. They are
// pipes with names, read all the time, so that a command that prints without
// end fills nothing and is not held up. The nil Answer catches nothing.
type Answer struct{ out, err *stream }

// OpenAnswer makes the pipes in dir, with names that begin like that; nil where
// there is no room for them, for a command can run without.
func OpenAnswer(dir, name string) *Answer {
	if os.MkdirAll(dir, 0o700) != nil {
		return nil
	}
	a := &Answer{out: openStream(filepath.Join(dir, name+".out")), err: openStream(filepath.Join(dir, name+".err"))}
	if a.out == nil || a.err == nil {
		a.Close()
		return nil
	}
	return a
}

// Names are what is to be opened to write; empty for the nil Answer.
func (a *Answer) Names() (out, err string) {
	if a == nil {
		return "", ""
	}
	return a.out.name, a.err.name
}

// Close removes the pipes and returns the last line that was printed, for
// Ended; one on the error stream says more than any other.
func (a *Answer) Close() string {
	if a == nil {
		return ""
	}
	return cmp.Or(LastLine(a.err.close()), LastLine(a.out.close()))
}

// stream is one pipe with a name.
type stream struct {
	name   string
	reader *os.File
	writer *os.File // ours, so that the pipe does not end before the shim has opened it
	done   chan struct{}
	tail   []byte // valid once done is closed
}

// openStream makes a pipe and reads it; nil when there is none to be had.
func openStream(name string) *stream {
	_ = os.Remove(name) // of an agent that was killed
	if unix.Mkfifo(name, 0o600) != nil {
		return nil
	}
	s := &stream{name: name, done: make(chan struct{})}
	var err error
	if s.reader, err = os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
		s.writer, err = os.OpenFile(name, os.O_WRONLY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		s.reader.Close() // which may be nil
		os.Remove(name)
		return nil
	}
	go s.read()
	return s
}

// read keeps the end of what comes, until nobody can write any more.
func (s *stream) read() {
	defer close(s.done)
	buffer := make([]byte, 4<<10)
	for {
		n, err := s.reader.Read(buffer)
		s.tail = append(s.tail, buffer[:n]...)
		s.tail = s.tail[max(0, len(s.tail)-keptAnswer):]
		if err != nil {
			return
		}
	}
}

// close returns the end of what came, once the shim has let go of the pipe, or
// soon.
func (s *stream) close() []byte {
	if s == nil {
		return nil
	}
	s.writer.Close()
	_ = s.reader.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	<-s.done
	s.reader.Close()
	os.Remove(s.name)
	return s.tail
}
