package gitsource

import (
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
)

// objects is something to read Git objects from. What read returns has the id
// that was asked for: it was hashed on the way.
type objects interface {
	read(id plumbing.Hash) (plumbing.ObjectType, []byte, error) // errMissing where it is not
	size(id plumbing.Hash) (int64, error)                       // bytes, inflated
}

// errMissing: the object is not here.
var errMissing = errors.New("object is missing")

// layers are several places to look in, one after the other.
type layers []objects

func (l layers) read(id plumbing.Hash) (plumbing.ObjectType, []byte, error) {
	err := fmt.Errorf("%w: %s", errMissing, id)
	for _, o := range l {
		kind, raw, oerr := o.read(id)
		if oerr == nil {
			return kind, raw, nil
		}
		if !errors.Is(oerr, errMissing) {
			err = oerr
		}
	}
	return plumbing.InvalidObject, nil, err
}

func (l layers) size(id plumbing.Hash) (int64, error) {
	err := fmt.Errorf("%w: %s", errMissing, id)
	for _, o := range l {
		size, oerr := o.size(id)
		if oerr == nil {
			return size, nil
		}
		if !errors.Is(oerr, errMissing) {
			err = oerr
		}
	}
	return 0, err
}

// readCommit reads and parses the commit id.
func readCommit(objs objects, id plumbing.Hash) (*commit, error) {
	kind, raw, err := objs.read(id)
	if err != nil {
		return nil, err
	}
	if kind != plumbing.CommitObject {
		return nil, &malformedError{fmt.Errorf("object %s is a %s, not a commit", id, kind)}
	}
	c, err := parseCommit(raw)
	if err != nil {
		return nil, &malformedError{err}
	}
	return c, nil
}
