package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/tidemark-edge/tidemark/schema"
)

// Main is the child: it reads a request and files from stdin, evaluates within
// the request's limits, writes the result to stdout and returns the exit code.
// It bounds the whole process, so the program does nothing else.
func Main(stdin io.Reader, stdout io.Writer) int {
	c := &child{out: bufio.NewWriter(stdout)}
	in := bufio.NewReaderSize(stdin, 64<<10)
	q, err := readHead(in)
	if err != nil {
		return c.last(message{Fault: err.Error()})
	}
	c.limits = q.Limits
	c.bound()
	files, err := readFiles(in, q.Files)
	if err != nil {
		return c.last(message{Fault: err.Error()})
	}
	c.begin()
	if q.All {
		return c.devices(files, q.Done)
	}
	desired, err := files.Load(context.Background(), q.Device, q.Dir)
	if err != nil {
		var m message
		m.Invalid, m.Fault = fromError(err)
		return c.last(m)
	}
	return c.last(message{Desired: &desired})
}

// child is the state of one Main.
type child struct {
	limits limits

	mu    sync.Mutex // for what follows: the watcher speaks, too
	out   *bufio.Writer
	start spent // when the present device was begun
}

func (c *child) devices(files schema.Tree, done []string) int {
	for _, dir := range files.DeviceDirs() {
		if slices.Contains(done, dir) {
			continue
		}
		c.begin()
		c.say(message{Begun: dir})
		c.say(message{Entry: newEntry(files.Device(dir))})
	}
	return c.last(message{})
}

// say writes one message. The parent notices when it cannot be.
func (c *child) say(m message) {
	b, err := json.Marshal(m)
	if err != nil {
		b, _ = json.Marshal(message{Fault: "write result: " + err.Error(), End: true})
	}
	if len(b) > maxMessage {
		m := message{End: true}
		m.Invalid = refusal("the result has %d MiB as JSON: at most %d", len(b)>>20, maxMessage>>20)
		b, _ = json.Marshal(m)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if writeFrame(c.out, b) != nil || c.out.Flush() != nil {
		os.Exit(1) // nobody listens
	}
}

// last says the last message.
func (c *child) last(m message) int {
	m.End = true
	c.say(m)
	return 0
}
