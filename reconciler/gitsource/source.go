// Package gitsource is the fleet repository as a file system per commit.
//
// Fetch does this, and leaves everything as it was where a step does not hold:
//
//  1. Ask what the branch points at. The accepted commit: done, in one round trip.
//  2. Bring that commit, with its tree, into quarantine.
//  3. Prove that it descends from the accepted commit, and look as far back as
//     that takes; what only looks back is not kept.
//  4. Check the signature of every commit on the first-parent line between the
//     two, over the bytes of the commit objects.
//  5. Walk the tree: whole, and within the limits.
//  6. Move it from quarantine into the clone, write it down as accepted.
//
// The clone is bare and shallow: the accepted commits in full, nothing below
// them, no work tree. A fleet repository of a 12 MB pack costs a full clone by
// go-git 127 MB of memory; a commit and its tree cost what they weigh. The price
// is that descent cannot be read off the clone, so step 3 asks the server for
// bare commits where the gap is wider than one (most servers can leave the
// trees out; from others they come along and are thrown away).
//
// What was accepted is written down beside the clone, with a checksum. The clone
// can be damaged or lost: it is made anew, beside the old one, and the device
// neither forgets nor goes back. Every object is hashed when it is read, so a
// damaged disk cannot change a definition.
//
// The directory belongs to one process at a time:
//
//	accepted.json   the accepted revision, and a few before it
//	clone/          a bare repository, readable by Git's own tools
//	lock
package gitsource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/tidemark-edge/tidemark/schema"
)

// CommitVerifier decides whether a commit was signed by somebody whom the
// device trusts.
type CommitVerifier interface {
	// VerifyCommit takes the bytes of a commit object as Git stores them, and
	// says whose signature it carries.
	VerifyCommit(raw []byte) (principal string, err error)
}

// descendantVerifier is a CommitVerifier that can also be told the committer
// time of a commit that raw is known to descend from, so that a retired key
// cannot sign with a date of the past. Where it has this method, it is used.
type descendantVerifier interface {
	VerifyDescendant(raw []byte, since time.Time) (principal string, err error)
}

// ErrNothingAccepted: no commit was accepted yet.
var ErrNothingAccepted = errors.New("no commit of the fleet repository was accepted yet")

// ErrNoBranch: the repository answers, and has no such branch. It is empty, or
// the branch was deleted.
var ErrNoBranch = errNoBranch

// Source is one branch of the fleet repository. Its methods may be called
// concurrently; they wait for each other, while the trees that they returned
// stay readable.
type Source struct {
	Limits Limits // DefaultLimits; set before the first Fetch

	dir     string
	repo    schema.Repository
	at      location
	commits CommitVerifier // nil: signatures are not looked at
	lock    *os.File

	mu      sync.Mutex
	state   accepted
	tree    *treeFS              // of state
	refused *schema.RefusedError // the newest tip, where it is not acceptable
	trusted bool                 // the signature of state was checked since Open
	pinned  []plumbing.Hash      // what At returned last, kept when the clone is compacted
	barren  plumbing.Hash        // a refused tip that a damaged clone cannot be made anew from
	mended  []string

	storeMu sync.RWMutex
	store   *store
	whole   bool        // the tree of state was walked, and is complete
	damaged atomic.Bool // an object that must be here could not be read
}

// Open opens the source that keeps its state in dir, and makes dir. Only what
// the device's owner has to mend is an error: a damaged clone or state file is
// set aside and made anew, and Mended tells of it.
func Open(dir string, repo schema.Repository, commits CommitVerifier) (*Source, error) {
	if repo.Branch == "" {
		repo.Branch = "main"
	}
	at, err := checkRepository(repo)
	if err != nil {
		return nil, err
	}
	switch {
	case repo.Verify == schema.VerifyOff:
		commits = nil
	case commits == nil:
		return nil, errors.New("repository: verify is signed, and there is nothing to verify with: set allowedSigners")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the source: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Source{Limits: DefaultLimits(), dir: dir, repo: repo, at: at, commits: commits, lock: lock}
	if err := s.load(); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

// checkRepository refuses a configuration that could not work, or not safely.
func checkRepository(repo schema.Repository) (location, error) {
	at, err := parseLocation(repo.URL)
	if err != nil {
		return at, err
	}
	if err := checkBranch(repo.Branch); err != nil {
		return at, fmt.Errorf("repository: %w", err)
	}
	switch {
	case repo.Verify != schema.VerifySigned && repo.Verify != schema.VerifyOff:
		return at, fmt.Errorf("repository: verify is %q; want signed or off", repo.Verify)
	case at.kind == kindSSH && repo.SSHKeyFile == "":
		return at, errors.New("repository: an ssh url needs sshKeyFile")
	case at.kind == kindSSH && repo.KnownHostsFile == "":
		return at, errors.New("repository: an ssh url needs knownHostsFile, with the key of the host")
	case repo.TokenFile != "" && at.plainOverNetwork():
		return at, errors.New("repository: tokenFile would be sent in the clear over http: use https")
	}
	return at, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the source: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("open the source: %s is in use by another process", dir)
	}
	return f, nil
}

// Close ends the use of the directory. Trees that were returned are not
// readable any more.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current().close()
	return s.lock.Close()
}

func (s *Source) statePath() string { return filepath.Join(s.dir, "accepted.json") }
func (s *Source) clonePath() string { return filepath.Join(s.dir, "clone") }
func (s *Source) freshPath() string { return filepath.Join(s.dir, "clone.new") }

// Mended says what was found damaged and set aside since the last call, for
// the log and the report.
func (s *Source) Mended() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	notes := s.mended
	s.mended = nil
	return notes
}

func (s *Source) note(format string, args ...any) {
	const plenty = 16 // nobody may be asking
	if len(s.mended) < plenty {
		s.mended = append(s.mended, fmt.Sprintf(format, args...))
	}
}

// Fetch returns the commit that the branch points at, and its tree, once the
// device has accepted it. The errors are *schema.RefusedError for a commit that
// is not acceptable, *UnreachableError where the repository could not be
// asked, and ErrNoBranch. In each case Accepted is what it was.
func (s *Source) Fetch(ctx context.Context) (schema.Revision, fs.FS, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, dog, stop := watch(ctx, s.Limits.Stall)
	defer stop()
	conn, tip, err := s.ask(ctx, dog)
	if err != nil {
		return schema.Revision{}, nil, err
	}
	defer conn.close()
	if err := s.heal(ctx, conn, tip); err != nil {
		return schema.Revision{}, nil, s.verdict(ctx, tip, err)
	}
	if tip == s.state.id() {
		return s.unchanged()
	}
	if s.refused != nil && s.refused.Revision.Commit == tip.String() {
		return schema.Revision{}, nil, s.refused
	}
	q := newQuarantine(s.current(), s.Limits)
	defer q.discard()
	revision, err := s.judge(ctx, conn, q, tip)
	if err != nil {
		return schema.Revision{}, nil, s.verdict(ctx, tip, err)
	}
	return s.accept(q, revision)
}

// ask opens a conversation and asks for the tip.
func (s *Source) ask(ctx context.Context, dog *watchdog) (remote, plumbing.Hash, error) {
	conn, err := dial(ctx, s.repo, s.at, dog, s.Limits)
	if err != nil {
		return nil, plumbing.ZeroHash, s.unreachable(ctx, err)
	}
	tip, err := conn.tip(ctx, s.repo.Branch)
	if errors.Is(err, errNoBranch) {
		conn.close()
		return nil, plumbing.ZeroHash, fmt.Errorf("fetch %s: %w: %s; push it, or name another one in the configuration",
			s.repo.URL, ErrNoBranch, s.repo.Branch)
	}
	if err != nil {
		conn.close()
		return nil, plumbing.ZeroHash, s.unreachable(ctx, err)
	}
	return conn, tip, nil
}

// unchanged returns what was accepted before.
func (s *Source) unchanged() (schema.Revision, fs.FS, error) {
	tree, err := s.acceptedTree()
	if err != nil {
		return schema.Revision{}, nil, err
	}
	if err := s.trust(); err != nil {
		return schema.Revision{}, nil, err
	}
	s.refused = nil
	return s.state.Revision, tree, nil
}

// trust checks the signature of the accepted commit, the first time since Open:
// the signers may be others now.
func (s *Source) trust() error {
	if s.commits == nil || s.trusted {
		return nil
	}
	id := s.state.id()
	c, err := readCommit(s, id)
	if err != nil {
		return err
	}
	signer, err := s.verify(graph{id: c}, []plumbing.Hash{id}, time.Time{})
	if err != nil {
		return &schema.RefusedError{Revision: s.state.Revision, Phase: schema.PhaseFetching, Err: err}
	}
	s.state.Revision.Signer, s.trusted = signer, true
	return nil
}

// accept makes a judged commit the accepted one. The order matters: the objects
// are on disk before the state file names them.
func (s *Source) accept(q *quarantine, revision schema.Revision) (schema.Revision, fs.FS, error) {
	if err := q.release(); err != nil {
		return schema.Revision{}, nil, err
	}
	next := s.state.advanced(revision)
	if err := next.write(s.statePath()); err != nil {
		return schema.Revision{}, nil, err
	}
	s.state, s.tree, s.refused, s.trusted, s.whole = next, nil, nil, true, true
	if err := s.tidy(); err != nil { // of no consequence for what was accepted
		s.note("tidy the clone: %v", err)
		if _, system := errors.AsType[syscall.Errno](err); !system && !isUnfit(err) {
			s.damaged.Store(true) // or what cannot be read would keep the clone growing
		}
	}
	tree, err := s.acceptedTree()
	return revision, tree, err
}

// tidy compacts the clone where it has become large, and writes the branch.
func (s *Source) tidy() error {
	st := s.current()
	if st.crowded(s.Limits) {
		if err := st.compact(s.keep(), s.Limits); err != nil {
			return err
		}
	}
	boundary, err := st.boundary()
	if err != nil {
		return err
	}
	return st.point(s.repo.Branch, s.state.id(), boundary)
}

// keep lists the commits whose trees are still wanted.
func (s *Source) keep() []plumbing.Hash {
	ids := append([]plumbing.Hash{s.state.id()}, s.pinned...)
	for _, r := range s.state.Earlier {
		ids = append(ids, plumbing.NewHash(r.Commit))
	}
	var kept []plumbing.Hash
	for _, id := range ids {
		if c, err := readCommit(s.current(), id); err == nil && survey(s.current(), c.tree, s.Limits) == nil {
			kept = append(kept, id)
		}
	}
	return kept
}

func (s *Source) acceptedTree() (*treeFS, error) {
	if s.tree == nil {
		c, err := readCommit(s, s.state.id())
		if err != nil {
			return nil, fmt.Errorf("read the accepted commit: %w", err)
		}
		s.tree = newTreeFS(s, c, s.Limits)
	}
	return s.tree, nil
}

func (s *Source) current() *store {
	s.storeMu.RLock()
	defer s.storeMu.RUnlock()
	return s.store
}

// read and size make a Source the objects of the trees that it returns: they
// outlive the store they were first read from. What fails here was on disk
// before, so the next Fetch makes the clone anew.
func (s *Source) read(id plumbing.Hash) (plumbing.ObjectType, []byte, error) {
	kind, raw, err := s.current().read(id)
	return kind, raw, s.damage(err)
}

func (s *Source) size(id plumbing.Hash) (int64, error) {
	size, err := s.current().size(id)
	return size, s.damage(err)
}
