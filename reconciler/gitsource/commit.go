package gitsource

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/tidemark-edge/tidemark/schema"
)

// maxCommitBytes bounds one commit object: message, signature and all.
const maxCommitBytes = 1 << 20

// commit is what is needed of a commit object. raw is the object as it is
// stored: a signature covers these bytes, and no others.
type commit struct {
	raw     []byte
	tree    plumbing.Hash
	parents []plumbing.Hash
	author  string
	subject string
	time    time.Time // committer time
}

// parseCommit reads a commit object. It wants the headers that Git writes, in
// Git's order and once each (as git fsck does), so that no two readers can see
// two different commits in the same bytes.
func parseCommit(raw []byte) (*commit, error) {
	if len(raw) > maxCommitBytes {
		return nil, &limitError{what: "bytes of a commit object", bound: maxCommitBytes, have: int64(len(raw))}
	}
	c := &commit{raw: raw}
	head, message, found := bytes.Cut(raw, []byte("\n\n"))
	if !found { // no message at all: headers only, ended by a newline
		head = bytes.TrimSuffix(raw, []byte("\n"))
	}
	lines := strings.Split(string(head), "\n")
	next := func(key string) (string, bool) {
		if len(lines) == 0 {
			return "", false
		}
		value, ok := strings.CutPrefix(lines[0], key+" ")
		if ok {
			lines = lines[1:]
		}
		return value, ok
	}
	tree, ok := next("tree")
	if !ok || !plumbing.IsHash(tree) {
		return nil, errors.New("commit object: no tree")
	}
	c.tree = plumbing.NewHash(tree)
	for parent, ok := next("parent"); ok; parent, ok = next("parent") {
		if !plumbing.IsHash(parent) {
			return nil, fmt.Errorf("commit object: parent %q is no object id", parent)
		}
		c.parents = append(c.parents, plumbing.NewHash(parent))
	}
	author, ok := next("author")
	if !ok {
		return nil, errors.New("commit object: no author")
	}
	committer, ok := next("committer")
	if !ok {
		return nil, errors.New("commit object: no committer")
	}
	for _, line := range lines {
		switch key, _, _ := strings.Cut(line, " "); key {
		case "tree", "parent", "author", "committer":
			return nil, fmt.Errorf("commit object: a second %s, or one out of order", key)
		}
	}
	c.author, _ = parseIdentity(author)
	_, c.time = parseIdentity(committer)
	subject, _, _ := strings.Cut(strings.TrimLeft(string(message), "\n"), "\n")
	c.subject = printable(subject, 200)
	return c, nil
}

// parseIdentity takes "Name <mail> 1700000000 +0100" apart. What cannot be read
// is left out: it is shown to people, and nothing is decided by it.
func parseIdentity(s string) (who string, at time.Time) {
	end := strings.LastIndexByte(s, '>')
	if end < 0 {
		return printable(s, 200), time.Time{}
	}
	stamp, _, _ := strings.Cut(strings.TrimSpace(s[end+1:]), " ")
	if seconds, err := strconv.ParseInt(stamp, 10, 64); err == nil && seconds >= 0 && seconds < 1<<37 {
		at = time.Unix(seconds, 0).UTC()
	}
	return printable(s[:end+1], 200), at
}

// printable makes foreign text fit for a log line, a terminal and a JSON
// document, of at most max bytes.
func printable(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > max {
		s = strings.ToValidUTF8(s[:max], "") + "…"
	}
	return s
}

// revision describes c to the rest of the product.
func (c *commit) revision(id plumbing.Hash, branch, signer string) schema.Revision {
	return schema.Revision{
		Commit:  id.String(),
		Ref:     branch,
		Author:  c.author,
		Subject: c.subject,
		Signer:  signer,
		Time:    c.time,
	}
}
