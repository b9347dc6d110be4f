package signing

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// maxCommit bounds a commit object.
const maxCommit = 1 << 20

// commit is what the signature of a commit object is about.
type commit struct {
	payload   []byte // what was signed: the object without its signature
	signature []byte // armored
	committed time.Time
}

// committerRE takes the time from a committer line: seconds and an offset.
var committerRE = regexp.MustCompile(`^[^<>]*<[^<>]*> ([0-9]{1,12}) [+-][0-9]{4}$`)

// parseCommit reads a commit object strictly. Whoever reads it more loosely must
// not come to see another commit than the one that was signed (CVE-2026-45022,
// CVE-2026-44309), so everything that two readers could take differently is
// refused: headers in another order than git's, twice, or without an end.
func parseCommit(raw []byte) (*commit, error) {
	if len(raw) > maxCommit {
		return nil, fmt.Errorf("object larger than %d bytes", maxCommit)
	}
	end := bytes.Index(raw, []byte("\n\n"))
	if end < 0 {
		return nil, errors.New("object has no empty line behind its headers")
	}
	head, message := raw[:end+1], raw[end+1:]
	if bytes.ContainsAny(head, "\x00\r") {
		return nil, errors.New("header with a NUL or carriage return")
	}
	out := &commit{payload: make([]byte, 0, len(raw))}
	order := headerOrder{seen: map[string]bool{}}
	for len(head) > 0 {
		name, value, size, err := cutHeader(head)
		if err != nil {
			return nil, err
		}
		if err := order.next(name); err != nil {
			return nil, err
		}
		switch name {
		case "gpgsig":
			out.signature = value
		case "committer":
			if out.committed, err = commitTime(value); err != nil {
				return nil, err
			}
			fallthrough
		default:
			out.payload = append(out.payload, head[:size]...)
		}
		head = head[size:]
	}
	out.payload = append(out.payload, message...)
	if !order.seen["committer"] {
		return nil, errors.New("object without committer")
	}
	if out.signature == nil {
		return nil, errors.New("it is not signed: sign with git commit -S (git config gpg.format ssh)")
	}
	return out, nil
}

// cutHeader takes the first header with its continuation lines, which start
// with a space each. value has the spaces removed; size is what it takes in head.
func cutHeader(head []byte) (name string, value []byte, size int, err error) {
	line, _, _ := bytes.Cut(head, []byte("\n"))
	size = len(line) + 1
	key, first, ok := bytes.Cut(line, []byte(" "))
	if !ok || len(key) == 0 {
		return "", nil, 0, fmt.Errorf("header line %q", clip(string(line)))
	}
	value = append(value, first...)
	for size < len(head) && head[size] == ' ' {
		more, _, _ := bytes.Cut(head[size:], []byte("\n"))
		value = append(append(value, '\n'), more[1:]...)
		size += len(more) + 1
	}
	return string(key), value, size, nil
}

// headerOrder checks that headers come as git writes them: tree, parents,
// author, committer, then the others.
type headerOrder struct {
	seen  map[string]bool
	stage int
}

func (o *headerOrder) next(name string) error {
	stages := map[string]int{"tree": 1, "parent": 2, "author": 3, "committer": 4}
	stage, ok := stages[name]
	if !ok {
		stage = 5
	}
	switch {
	case name == "gpgsig-sha256":
		return errors.New("header gpgsig-sha256: repositories with SHA-256 object names are not supported")
	case o.seen[name] && name != "parent" && name != "mergetag":
		return fmt.Errorf("header %q occurs twice", clip(name))
	case stage < o.stage || stage > o.stage+1 && !(o.stage == 1 && stage == 3):
		return fmt.Errorf("header %q is out of order", clip(name))
	}
	o.seen[name], o.stage = true, stage
	return nil
}

// commitTime takes the time from a committer line.
func commitTime(value []byte) (time.Time, error) {
	m := committerRE.FindSubmatch(value)
	if m == nil {
		return time.Time{}, fmt.Errorf("committer line %q", clip(string(value)))
	}
	seconds, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("committer time: %w", err)
	}
	return time.Unix(seconds, 0), nil
}
