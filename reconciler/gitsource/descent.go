package gitsource

import (
	"maps"

	"github.com/go-git/go-git/v5/plumbing"
)

// maxGraphBytes bounds the commit objects kept in memory for one proof.
const maxGraphBytes = 32 << 20

// graph is the part of history that was seen in one Fetch.
type graph map[plumbing.Hash]*commit

// ancestry is what a graph can say of two commits.
type ancestry int

const (
	unknown  ancestry = iota // the graph ends too early
	descends                 // the tip has the base among its ancestors
	older                    // the base has the tip among its ancestors
	diverged                 // neither
)

// between says how tip relates to base. Where tip descends, line is every
// commit whose signature counts, newest first: the first-parent line from the
// tip down to, and without, base.
//
// A branch can also arrive at base by a second parent, where somebody merged
// the published branch into their own and pushed that (what a plain git pull
// does). Its first-parent line then goes past base, so no line separates what was
// pushed from what was merged: every new commit counts.
func (g graph) between(tip, base plumbing.Hash) (line []plumbing.Hash, a ancestry) {
	below := g.below(base)
	if below[tip] {
		return nil, older
	}
	for id := tip; ; {
		if id == base {
			return line, descends
		}
		if below[id] {
			break
		}
		c := g[id]
		if c == nil {
			return nil, unknown
		}
		line = append(line, id)
		if len(c.parents) == 0 {
			break
		}
		id = c.parents[0]
	}
	return g.allBetween(tip, base, below)
}

// allBetween collects every ancestor of tip that is not one of base.
func (g graph) allBetween(tip, base plumbing.Hash, below map[plumbing.Hash]bool) (fresh []plumbing.Hash, a ancestry) {
	found, complete := false, true
	seen := map[plumbing.Hash]bool{tip: true}
	for queue := []plumbing.Hash{tip}; len(queue) > 0; queue = queue[1:] {
		id := queue[0]
		c := g[id]
		switch {
		case id == base:
			found = true
			continue
		case below[id]:
			continue
		case c == nil:
			complete = false
			continue
		}
		fresh = append(fresh, id)
		for _, p := range c.parents {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	switch {
	case !complete:
		return nil, unknown
	case !found:
		return nil, diverged
	}
	return fresh, descends
}

// below is every known ancestor of base, itself excluded; the last ones may be
// known by name only.
func (g graph) below(base plumbing.Hash) map[plumbing.Hash]bool {
	seen := map[plumbing.Hash]bool{}
	for queue := []plumbing.Hash{base}; len(queue) > 0; queue = queue[1:] {
		c := g[queue[0]]
		if c == nil {
			continue
		}
		for _, p := range c.parents {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	return seen
}

// distance is the number of steps from tip to id by the shortest way, or -1.
func (g graph) distance(tip, id plumbing.Hash) int {
	steps := map[plumbing.Hash]int{tip: 0}
	for queue := []plumbing.Hash{tip}; len(queue) > 0; queue = queue[1:] {
		at := queue[0]
		if at == id {
			return steps[at]
		}
		c := g[at]
		if c == nil {
			continue
		}
		for _, p := range c.parents {
			if _, ok := steps[p]; !ok {
				steps[p] = steps[at] + 1
				queue = append(queue, p)
			}
		}
	}
	return -1
}

// add takes over the commits of a pack.
func (g graph) add(p *pack) error {
	if p == nil {
		return nil
	}
	found, err := p.commits(maxGraphBytes)
	if err != nil {
		return err
	}
	maps.Copy(g, found)
	return nil
}
