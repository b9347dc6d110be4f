// Package account finds out as whom a module's first process runs: what a user
// means that is a name, by the files of an image, and in what form it is noted.
package account

import (
	"fmt"
	"strconv"
	"strings"
)

// IDs are those of a process. The zero value is root.
type IDs struct {
	UID    uint32   // of the user; at most 2³¹-1, as GID
	GID    uint32   // of its primary group
	Groups []uint32 // the supplementary ones, 64 at most
}

// maxID is the largest id that every kernel interface takes as what it is;
// larger ones have turned into 0 (CVE-2024-40635).
const maxID = 1<<31 - 1

// maxGroups bounds the supplementary groups; the kernel's own bound is 65536.
const maxGroups = 64

// parseID reads a numeric id. numeric is false when s is not a number at all,
// so that it may be a name; a number out of range is an error and never a name
// (CVE-2026-46680).
func parseID(s string) (id uint32, numeric bool, err error) {
	if s == "" || strings.Trim(s, "+-0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxID {
		return 0, true, fmt.Errorf("id %q: want a number up to %d", s, maxID)
	}
	return uint32(n), true, nil
}

// ParsePair reads "uid:gid", both numeric.
func ParsePair(s string) (IDs, error) {
	u, g, _ := strings.Cut(s, ":")
	uid, ok, err := parseID(u)
	if err != nil || !ok {
		return IDs{}, fmt.Errorf("user %q: want uid:gid", s)
	}
	gid, ok, err := parseID(g)
	if err != nil || !ok {
		return IDs{}, fmt.Errorf("user %q: want uid:gid", s)
	}
	return IDs{UID: uid, GID: gid}, nil
}

// String is the inverse of Parse.
func (u IDs) String() string {
	s := fmt.Sprintf("%d:%d", u.UID, u.GID)
	for _, g := range u.Groups {
		s += "," + strconv.FormatUint(uint64(g), 10)
	}
	return s
}

// Parse reads uid:gid[,group…].
func Parse(s string) (IDs, error) {
	ids, groups, _ := strings.Cut(s, ",")
	u, err := ParsePair(ids)
	if err != nil || groups == "" {
		return u, err
	}
	for g := range strings.SplitSeq(groups, ",") {
		gid, ok, err := parseID(g)
		if err != nil || !ok || len(u.Groups) == maxGroups {
			return IDs{}, fmt.Errorf("user %q: want uid:gid[,group…]", s)
		}
		u.Groups = append(u.Groups, gid)
	}
	return u, nil
}
