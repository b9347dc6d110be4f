package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// Bounds on what goes over the pipes.
const (
	maxRequest = 4 << 20  // bytes of a request without its files
	maxPath    = 4 << 10  // bytes of a file's path
	maxMessage = 16 << 20 // bytes of one message of the child
)

// request asks the child for one device, or for all. It is followed by the
// files: for each, its path and its content.
type request struct {
	Device string   `json:"device,omitempty"`
	Dir    string   `json:"dir,omitempty"`
	All    bool     `json:"all,omitempty"`
	Done   []string `json:"done,omitempty"` // directories to leave out, with All
	Limits limits   `json:"limits"`
	Files  int      `json:"files"`
}

// limits bound the evaluation of one device.
type limits struct {
	Memory int64         `json:"memory"` // bytes
	CPU    time.Duration `json:"cpu"`
	Wall   time.Duration `json:"wall"`
}

// message is what the child says: that it begins with a directory, what came of
// one, or, last, the result.
type message struct {
	Begun   string               `json:"begun,omitempty"`
	Entry   *entry               `json:"entry,omitempty"`
	Desired *schema.Desired      `json:"desired,omitempty"`
	Invalid *schema.InvalidError `json:"invalid,omitempty"` // the definitions are not acceptable
	Fault   string               `json:"fault,omitempty"`   // the child could not do its work
	End     bool                 `json:"end,omitempty"`     // nothing follows
}

func (m message) err() error { return asError(m.Invalid, m.Fault) }

// entry is schema.Entry with an error that survives JSON.
type entry struct {
	Name     string               `json:"name"`
	Dir      string               `json:"dir"`
	Identity string               `json:"identity,omitempty"`
	Tags     map[string]any       `json:"tags,omitempty"`
	Invalid  *schema.InvalidError `json:"invalid,omitempty"`
	Fault    string               `json:"fault,omitempty"`
}

func (e entry) entry() schema.Entry {
	return schema.Entry{Name: e.Name, Dir: e.Dir, Identity: e.Identity, Tags: e.Tags, Err: asError(e.Invalid, e.Fault)}
}

func newEntry(e schema.Entry) *entry {
	out := &entry{Name: e.Name, Dir: e.Dir, Identity: e.Identity, Tags: e.Tags}
	out.Invalid, out.Fault = fromError(e.Err)
	return out
}

func asError(invalid *schema.InvalidError, fault string) error {
	switch {
	case invalid != nil:
		return invalid
	case fault != "":
		return errors.New(fault)
	}
	return nil
}

func fromError(err error) (*schema.InvalidError, string) {
	var invalid *schema.InvalidError
	switch {
	case err == nil:
		return nil, ""
	case errors.As(err, &invalid):
		return invalid, ""
	}
	return nil, err.Error()
}

// writeFrame writes b after its length.
func writeFrame(w io.Writer, b []byte) error {
	if _, err := w.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b)))); err != nil {
		return err
	}
	_, err := w.Write(b)
	return err
}

// readFrame reads what writeFrame wrote; io.EOF is a clean end before it.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > int64(limit) {
		return nil, fmt.Errorf("a frame of %d bytes: at most %d", n, limit)
	}
	// Not made at once: the length is only a claim.
	b, err := io.ReadAll(io.LimitReader(r, n))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) < n {
		return nil, io.ErrUnexpectedEOF
	}
	return b, nil
}

func writeRequest(w io.Writer, q request, files schema.Tree) error {
	q.Files = len(files)
	head, err := json.Marshal(q)
	if err != nil {
		return err
	}
	if err := writeFrame(w, head); err != nil {
		return err
	}
	for path, content := range files {
		if err := writeFrame(w, []byte(path)); err != nil {
			return err
		}
		if err := writeFrame(w, content); err != nil {
			return err
		}
	}
	return nil
}

// readHead reads a request without its files.
func readHead(r io.Reader) (request, error) {
	b, err := readFrame(r, maxRequest)
	if err != nil {
		return request{}, fmt.Errorf("read request: %w", err)
	}
	var q request
	if err := json.Unmarshal(b, &q); err != nil {
		return request{}, fmt.Errorf("read request: %w", err)
	}
	if q.Files < 0 || q.Files > schema.MaxTreeFiles {
		return request{}, fmt.Errorf("read request: %d files: at most %d", q.Files, schema.MaxTreeFiles)
	}
	if q.Limits.Memory <= 0 || q.Limits.CPU <= 0 || q.Limits.Wall <= 0 {
		return request{}, fmt.Errorf("read request: without limits: %+v", q.Limits)
	}
	return q, nil
}

func readFiles(r io.Reader, n int) (schema.Tree, error) {
	files, total := schema.Tree{}, 0
	for range n {
		path, err := readFrame(r, maxPath)
		if err != nil {
			return nil, fmt.Errorf("read files: %w", noEOF(err))
		}
		content, err := readFrame(r, schema.MaxFileBytes)
		if err != nil {
			return nil, fmt.Errorf("read files: %s: %w", path, noEOF(err))
		}
		if total += len(content); total > schema.MaxTreeBytes {
			return nil, fmt.Errorf("read files: more than %d bytes", schema.MaxTreeBytes)
		}
		files[string(path)] = content
	}
	return files, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
