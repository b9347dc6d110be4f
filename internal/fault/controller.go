package fault

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// Controller hears of each failpoint that an agent reaches, and decides what
// happens there.
type Controller struct {
	Path string // of the socket, for the variable TIDEMARK_FAILPOINTS

	mu        sync.Mutex
	traps     map[string]*trap
	reached   map[string]int
	questions net.Conn
	answers   *bufio.Reader
}

// trap is what is to happen at a failpoint.
type trap struct {
	skip   int // how often it is passed before
	strike func()
	struck chan struct{}
}

// newController listens at path.
func newController(t testing.TB, path string) *Controller {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	c := &Controller{Path: path, traps: map[string]*trap{}, reached: map[string]int{}}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go c.serve(conn)
		}
	}()
	return c
}

// serve hears one message of an agent.
func (c *Controller) serve(conn net.Conn) {
	lines := bufio.NewReader(conn)
	line, err := lines.ReadString('\n')
	name, _, _ := strings.Cut(line, " ")
	if err != nil {
		conn.Close()
		return
	}
	if name == "questions" {
		c.mu.Lock()
		if c.questions != nil {
			c.questions.Close()
		}
		c.questions, c.answers = conn, lines
		c.mu.Unlock()
		return
	}
	defer conn.Close()
	c.mu.Lock()
	c.reached[name]++
	t := c.traps[name]
	if t == nil {
		t = c.traps[""]
	}
	if t != nil && t.skip > 0 {
		t.skip--
		t = nil
	}
	if t != nil {
		clear(c.traps) // one strikes, once
	}
	c.mu.Unlock()
	if t != nil {
		t.strike()
		close(t.struck)
	}
	conn.Write([]byte{1})
}

// At has strike called when the failpoint of this name, or any if it is empty, has
// been reached skip times and is reached once more. The agent waits there until
// strike returns. The result is closed then. One trap is set at a time: it replaces
// the one before.
func (c *Controller) At(name string, skip int, strike func()) (struck <-chan struct{}) {
	t := &trap{skip, strike, make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.traps)
	c.traps[name] = t
	return t.struck
}

// Clear takes the trap away, and reports whether there was one. Where there was
// none it has struck, or strikes at this moment.
func (c *Controller) Clear() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer clear(c.traps)
	return len(c.traps) > 0
}

// Reached is how often each failpoint was reached, by name.
func (c *Controller) Reached() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := make(map[string]int, len(c.reached))
	for name, n := range c.reached {
		counts[name] = n
	}
	return counts
}

// Goroutines are how many the agent has, and what they do. It fails while there is
// no agent.
func (c *Controller) Goroutines() (n int, stacks string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.questions == nil {
		return 0, "", fmt.Errorf("goroutines: no agent has said that it is there")
	}
	c.questions.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintln(c.questions, "goroutines"); err != nil {
		return 0, "", err
	}
	var lines int
	if _, err := fmt.Fscanf(c.answers, "%d %d\n", &n, &lines); err != nil {
		return 0, "", fmt.Errorf("goroutines: %w", err)
	}
	var text strings.Builder
	for range lines {
		line, err := c.answers.ReadString('\n')
		if err != nil && err != io.EOF {
			return 0, "", fmt.Errorf("goroutines: %w", err)
		}
		text.WriteString(line)
	}
	return n, text.String(), nil
}
