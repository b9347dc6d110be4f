package gitsource

import (
	"bufio"
	"compress/zlib"
	"context"
	"crypto/sha1" //nolint:gosec // the trailer of Git's pack format
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"

	"github.com/go-git/go-git/v5/plumbing"
)

// writePack writes the objects ids as a pack, one at a time and without
// deltas. It is how a local repository is copied and how our own packs become
// one; a fleet repository is small enough to do without deltas, and the memory
// is that of the largest object.
func writePack(ctx context.Context, w io.Writer, ids []plumbing.Hash, from objects) error {
	sum := sha1.New()
	out := io.MultiWriter(w, sum)
	head := append([]byte("PACK"), 0, 0, 0, 2)
	if _, err := out.Write(binary.BigEndian.AppendUint32(head, uint32(len(ids)))); err != nil {
		return err
	}
	deflate := zlib.NewWriter(out)
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		kind, raw, err := from.read(id)
		if err != nil {
			return err
		}
		if _, err := out.Write(objectHeader(kind, len(raw))); err != nil {
			return err
		}
		deflate.Reset(out)
		if _, err := deflate.Write(raw); err != nil {
			return err
		}
		if err := deflate.Close(); err != nil {
			return err
		}
	}
	_, err := w.Write(sum.Sum(nil))
	return err
}

// objectHeader is the type in three bits and the size in groups of 4, 7, 7, …
// bits, the lowest first (gitformat-pack).
func objectHeader(kind plumbing.ObjectType, size int) []byte {
	c := byte(kind)<<4 | byte(size&15)
	size >>= 4
	var b []byte
	for size > 0 {
		b = append(b, c|0x80)
		c = byte(size & 0x7f)
		size >>= 7
	}
	return append(b, c)
}

// closure lists the objects of one tree, itself first, without those in seen,
// and adds them to seen.
func closure(from objects, tree plumbing.Hash, seen map[plumbing.Hash]bool, limits Limits) ([]plumbing.Hash, error) {
	var ids []plumbing.Hash
	var walk func(id plumbing.Hash, dir string, depth int) error
	walk = func(id plumbing.Hash, dir string, depth int) error {
		if seen[id] {
			return nil
		}
		if depth > limits.Depth {
			return &limitError{what: "directories above " + dir, bound: int64(limits.Depth)}
		}
		seen[id] = true
		ids = append(ids, id)
		entries, err := readTree(from, id, dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			switch {
			case seen[e.id] || e.mode&fs.ModeIrregular != 0: // a submodule's commit is elsewhere
				continue
			case e.mode.IsDir():
				if err := walk(e.id, dir+"/"+e.name, depth+1); err != nil {
					return err
				}
			default:
				seen[e.id] = true
				ids = append(ids, e.id)
			}
			if len(ids) > limits.PackObjects {
				return &limitError{what: "objects in one transfer", bound: int64(limits.PackObjects)}
			}
		}
		return nil
	}
	if err := walk(tree, ".", 0); err != nil {
		return nil, fmt.Errorf("list the tree %s: %w", tree, err)
	}
	return ids, nil
}

// stream writes a pack of ids into a pipe. The reader's Close ends the writer
// and waits until it reads from no longer.
func stream(ctx context.Context, ids []plumbing.Hash, from objects) io.ReadCloser {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffered := bufio.NewWriterSize(w, 64<<10)
		err := writePack(ctx, buffered, ids, from)
		if err == nil {
			err = buffered.Flush()
		}
		if err != nil {
			err = &transferError{err}
		}
		w.CloseWithError(err) // nil is the end of the stream
	}()
	return &streamed{r, done}
}

type streamed struct {
	*io.PipeReader
	done chan struct{}
}

func (s *streamed) Close() error {
	err := s.PipeReader.Close()
	<-s.done
	return err
}

// copyIn writes objects of the store as one new pack, not yet installed.
func (s *store) copyIn(ids []plumbing.Hash, limits Limits) (*pack, error) {
	r := stream(context.Background(), ids, s) // a local copy, bounded by the limits
	defer r.Close()
	limits.PackBytes *= 2 // without deltas
	limits.TotalBytes *= 2
	return receive(r, s.incoming(), limits)
}
