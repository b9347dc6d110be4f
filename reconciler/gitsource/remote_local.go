package gitsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	git "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// localRemote reads a repository on this machine, bare or not, straight from
// its object store. It needs no git binary, which a device need not have.
type localRemote struct {
	refs   storer.ReferenceStorer
	objs   *looseObjects
	limits Limits
}

func openLocal(path string, limits Limits) (remote, error) {
	repo, err := git.PlainOpenWithOptions(path, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if errors.Is(err, git.ErrRepositoryNotExists) {
		return nil, fmt.Errorf("there is no Git repository in %s", path)
	}
	if err != nil && strings.Contains(err.Error(), "objectformat") {
		return nil, errors.New(sha256Text)
	}
	if err != nil {
		return nil, fmt.Errorf("open the repository in %s: %w", path, err)
	}
	plain, ok := repo.Storer.(*filesystem.Storage)
	if !ok {
		return nil, fmt.Errorf("the repository in %s is of a kind that cannot be read", path)
	}
	// The default cache grows to 96 MB; what is copied is read once.
	small := filesystem.NewStorageWithOptions(plain.Filesystem(), cache.NewObjectLRU(deltaCache),
		filesystem.Options{KeepDescriptors: true})
	return &localRemote{refs: small, objs: &looseObjects{small, limits.ObjectBytes}, limits: limits}, nil
}

func (r *localRemote) tip(_ context.Context, branch string) (plumbing.Hash, error) {
	ref, err := storer.ResolveReference(r.refs, plumbing.NewBranchReferenceName(branch))
	if errors.Is(err, plumbing.ErrReferenceNotFound) {
		return plumbing.ZeroHash, errNoBranch
	}
	if err != nil {
		return plumbing.ZeroHash, err
	}
	return ref.Hash(), nil
}

func (r *localRemote) filters() bool { return true }

// pack does what git-upload-pack would do with the request.
func (r *localRemote) pack(ctx context.Context, req request) (io.ReadCloser, error) {
	seen := map[plumbing.Hash]bool{}
	if c, err := readCommit(r.objs, req.have); !req.have.IsZero() && err == nil {
		if _, err := closure(r.objs, c.tree, seen, r.limits); err != nil {
			return nil, err
		}
		seen[req.have] = true
	}
	var ids []plumbing.Hash
	row := []plumbing.Hash{req.want}
	for depth := 0; depth < req.depth && len(row) > 0; depth++ {
		var next []plumbing.Hash
		for _, id := range row {
			if seen[id] {
				continue
			}
			seen[id] = true
			c, err := readCommit(r.objs, id)
			if err != nil {
				return nil, err
			}
			ids = append(ids, id)
			if !req.commitsOnly {
				tree, err := closure(r.objs, c.tree, seen, r.limits)
				if err != nil {
					return nil, err
				}
				ids = append(ids, tree...)
			}
			next = append(next, c.parents...)
		}
		row = next
	}
	return stream(ctx, ids, r.objs), nil
}

func (r *localRemote) close() { r.objs.storage.Close() }

// looseObjects reads any repository's objects, loose and packed. It is used
// by one goroutine at a time.
type looseObjects struct {
	storage *filesystem.Storage
	max     int64 // bytes of one object
}

func (o *looseObjects) read(id plumbing.Hash) (kind plumbing.ObjectType, raw []byte, err error) {
	defer recoverAs(&err)
	size, err := o.size(id)
	if err != nil && !errors.Is(err, errMissing) { // what is missing may be in an alternate
		return plumbing.InvalidObject, nil, err
	}
	if size > o.max {
		return plumbing.InvalidObject, nil, &limitError{what: "bytes of one object", bound: o.max, have: size}
	}
	obj, err := o.storage.EncodedObject(plumbing.AnyObject, id)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return plumbing.InvalidObject, nil, fmt.Errorf("%w: %s", errMissing, id)
	}
	if err != nil {
		return plumbing.InvalidObject, nil, fmt.Errorf("read object %s: %w", id, err)
	}
	r, err := obj.Reader()
	if err != nil {
		return plumbing.InvalidObject, nil, fmt.Errorf("read object %s: %w", id, err)
	}
	defer r.Close()
	if raw, err = io.ReadAll(io.LimitReader(r, o.max+1)); err != nil {
		return plumbing.InvalidObject, nil, fmt.Errorf("read object %s: %w", id, err)
	}
	if plumbing.ComputeHash(obj.Type(), raw) != id {
		return plumbing.InvalidObject, nil, fmt.Errorf("object %s: its content has another hash", id)
	}
	return obj.Type(), raw, nil
}

func (o *looseObjects) size(id plumbing.Hash) (size int64, err error) {
	defer recoverAs(&err)
	size, err = o.storage.EncodedObjectSize(id)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		err = fmt.Errorf("%w: %s", errMissing, id)
	}
	return size, err
}
