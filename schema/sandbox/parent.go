package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// grace is how much longer than the child's own limit the parent waits: the
// child's own word is better than being killed.
const grace = 3 * time.Second

// evaluate starts a child, gives it q and files, and hands every message to
// heard, until the last one or an error. The child has ended when it returns.
func (r Renderer) evaluate(ctx context.Context, q request, files schema.Tree, heard func(message) error) error {
	q.Limits = r.limits()
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	exe, args := r.Exe, r.Args
	if exe == "" {
		exe = "/proc/self/exe" // also when the file was replaced by an update
	}
	if len(args) == 0 {
		args = []string{"evaluate"}
	}
	cmd := exec.CommandContext(running, exe, args...)
	cmd.Env = []string{"GOTRACEBACK=none"} // and nothing of ours: CUE_DEBUG, HOME, secrets
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt from a terminal is for us
	var stderr head
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("evaluate: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("evaluate: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("evaluate: start a child process: %w", err)
	}
	go func() {
		w := bufio.NewWriterSize(stdin, 64<<10)
		if writeRequest(w, q, files) == nil {
			_ = w.Flush() // a child that ended early is noticed below
		}
		_ = stdin.Close()
	}()
	var late atomic.Bool
	timer := time.AfterFunc(q.Limits.Wall+grace, func() { late.Store(true); cancel() })
	defer timer.Stop()
	ended, err := listen(stdout, func(m message) error {
		timer.Reset(q.Limits.Wall + grace)
		return heard(m)
	})
	if ended || err != nil {
		cancel() // it has nothing more to do, or talks nonsense
	}
	waitErr := cmd.Wait()
	switch {
	case ended:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case late.Load():
		return q.Limits.tooLong()
	case err != nil:
		return fmt.Errorf("evaluate: hear the child process: %w", err)
	}
	return q.Limits.died(waitErr, stderr.String())
}

// listen reads messages until the last one, which ended tells, or until there
// are no more.
func listen(r io.Reader, heard func(message) error) (ended bool, err error) {
	br := bufio.NewReader(r)
	for {
		b, err := readFrame(br, maxMessage)
		if err == io.EOF || err == io.ErrUnexpectedEOF || errors.Is(err, os.ErrClosed) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		var m message
		if err := json.Unmarshal(b, &m); err != nil {
			return false, err
		}
		if err := heard(m); err != nil || m.End {
			return true, err
		}
	}
}

// died explains a child that ended without a last message.
func (l limits) died(err error, stderr string) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status, ok := exit.Sys().(syscall.WaitStatus)
		switch {
		case strings.Contains(stderr, "stack exceeds") || strings.Contains(stderr, "stack overflow"):
			return l.tooDeep()
		case strings.Contains(stderr, "out of memory"), strings.Contains(stderr, "cannot allocate memory"),
			strings.Contains(stderr, "failed to allocate"): // the race detector's words
			return l.tooMuch()
		case strings.Contains(stderr, "SIGXCPU"), ok && status.Signaled() && status.Signal() == syscall.SIGXCPU:
			return l.tooBusy()
		case ok && status.Signaled() && status.Signal() == syscall.SIGKILL:
			return refusal("the evaluation was killed, most likely because the machine ran out of memory")
		}
	}
	if err == nil {
		err = errors.New("ended without a result")
	}
	if stderr = strings.TrimSpace(stderr); stderr != "" {
		return fmt.Errorf("evaluate: the child process: %w: %s", err, stderr)
	}
	return fmt.Errorf("evaluate: the child process: %w", err)
}

func (l limits) tooMuch() error {
	return refusal("the evaluation needs more than %d MiB of memory: look for what multiplies: loops, list.Range, disjunctions of disjunctions", l.Memory>>20)
}

func (l limits) tooBusy() error {
	return refusal("the evaluation needs more than %v of processor time: look for what multiplies: loops, list.Range, disjunctions of disjunctions", l.CPU)
}

func (l limits) tooLong() error {
	return refusal("the evaluation takes longer than %v: look for what multiplies: loops, list.Range, disjunctions of disjunctions", l.Wall)
}

func (l limits) tooDeep() error {
	return refusal("the evaluation goes too deep: look for a value that is defined by itself")
}

func refusal(format string, args ...any) *schema.InvalidError {
	return &schema.InvalidError{Problems: []schema.Problem{{Message: fmt.Sprintf(format, args...)}}}
}

// head keeps the beginning of what is written to it.
type head struct{ bytes.Buffer }

func (h *head) Write(b []byte) (int, error) {
	const enough = 4 << 10
	if room := enough - h.Len(); room > 0 {
		h.Buffer.Write(b[:min(len(b), room)])
	}
	return len(b), nil
}
