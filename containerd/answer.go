package containerd

import (
	"os"
	"path/filepath"
	"time"

	"github.com/tidemark-edge/tidemark/containerd/probe"
	"golang.org/x/sys/unix"
)

// keptAnswer is how much is kept of the end of what a command prints, in bytes.
const keptAnswer = 4 * probe.MaxAnswer

// answer catches what a command prints. It is a pipe with a name, read all the
// time, so that a command that prints without end fills nothing and is not held
// up. The nil answer catches nothing.
type answer struct {
	name   string
	reader *os.File
	writer *os.File // ours, so that the pipe does not end before the shim has opened it
	done   chan struct{}
	tail   []byte // valid once done is closed
}

// openAnswer makes the pipe; nil where there is no room for one, for a command
// can run without.
func (r *Runtime) openAnswer(cmd *command) *answer {
	if r.RunDir == "" {
		return nil
	}
	dir := filepath.Join(r.RunDir, "probes")
	if os.MkdirAll(dir, 0o700) != nil {
		return nil
	}
	a := &answer{name: filepath.Join(dir, cmd.container+"."+cmd.id), done: make(chan struct{})}
	_ = os.Remove(a.name) // of an agent that was killed
	if unix.Mkfifo(a.name, 0o600) != nil {
		return nil
	}
	var err error
	if a.reader, err = os.OpenFile(a.name, os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
		a.writer, err = os.OpenFile(a.name, os.O_WRONLY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		a.reader.Close()
		os.Remove(a.name)
		return nil
	}
	go a.read()
	return a
}

// path is what the shim opens; empty for the nil answer.
func (a *answer) path() string {
	if a == nil {
		return ""
	}
	return a.name
}

// read keeps the end of what comes, until nobody can write any more.
func (a *answer) read() {
	defer close(a.done)
	buffer := make([]byte, 4<<10)
	for {
		n, err := a.reader.Read(buffer)
		a.tail = append(a.tail, buffer[:n]...)
		a.tail = a.tail[max(0, len(a.tail)-keptAnswer):]
		if err != nil {
			return
		}
	}
}

// close returns the last line that was printed, after the shim has let go of
// the pipe, or soon.
func (a *answer) close() string {
	if a == nil {
		return ""
	}
	a.writer.Close()
	_ = a.reader.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	<-a.done
	a.reader.Close()
	os.Remove(a.name)
	return probe.LastLine(a.tail)
}
