package containerd

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// user is who a module's first process runs as.
type user struct {
	uid, gid uint32
	groups   []uint32 // supplementary
}

// maxID is the largest id that every kernel interface takes as what it is;
// larger ones have turned into 0 (CVE-2024-40635).
const maxID = 1<<31 - 1

var userNameRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,63}\$?$`)

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

// parseIDs reads "uid:gid", both numeric.
func parseIDs(s string) (user, error) {
	u, g, _ := strings.Cut(s, ":")
	uid, ok, err := parseID(u)
	if err != nil || !ok {
		return user{}, fmt.Errorf("user %q: want uid:gid", s)
	}
	gid, ok, err := parseID(g)
	if err != nil || !ok {
		return user{}, fmt.Errorf("user %q: want uid:gid", s)
	}
	return user{uid: uid, gid: gid}, nil
}

// resolveUser gives the ids that spec ("", "user", "user:group", each a name
// or a number) means with these files, as Docker does: a group that is not
// named is the user's own, and 0 for a number that the files do not know;
// supplementary groups come with a user whose group is not named.
func resolveUser(spec, passwd, group string) (user, error) {
	if spec == "" {
		return user{}, nil
	}
	name, groupName, hasGroup := strings.Cut(spec, ":")
	u, known, err := findUser(name, passwd)
	if err != nil {
		return user{}, fmt.Errorf("user %q: %w", spec, err)
	}
	if hasGroup {
		if u.gid, err = findGroup(groupName, group); err != nil {
			return user{}, fmt.Errorf("user %q: %w", spec, err)
		}
		return u, nil
	}
	if known != "" && u.uid != 0 {
		u.groups = groupsOf(known, u.gid, group)
	}
	return u, nil
}

// findUser finds a name or a number in passwd and says under which name it is
// known there.
func findUser(s, passwd string) (u user, known string, err error) {
	id, numeric, err := parseID(s)
	if err != nil {
		return user{}, "", err
	}
	if !numeric && !userNameRE.MatchString(s) {
		return user{}, "", fmt.Errorf("%q is neither a number nor a user name", s)
	}
	for f := range entries(passwd, 4) { // name:password:uid:gid:…
		uid, uidOK, uidErr := parseID(f[2])
		gid, gidOK, gidErr := parseID(f[3])
		if uidErr != nil || gidErr != nil || !uidOK || !gidOK {
			if !numeric && f[0] == s {
				return user{}, "", fmt.Errorf("%q has no valid ids in the image's /etc/passwd", s)
			}
			continue
		}
		if numeric && uid == id || !numeric && f[0] == s {
			return user{uid: uid, gid: gid}, f[0], nil
		}
	}
	if numeric {
		return user{uid: id}, "", nil
	}
	return user{}, "", fmt.Errorf("%q is not in the image's /etc/passwd: name a numeric user in the module", s)
}

// findGroup finds a name or a number; a number need not be in the file.
func findGroup(s, group string) (uint32, error) {
	id, numeric, err := parseID(s)
	if err != nil || numeric {
		return id, err
	}
	for f := range entries(group, 3) { // name:password:gid:members
		if f[0] != s {
			continue
		}
		gid, ok, err := parseID(f[2])
		if err != nil || !ok {
			return 0, fmt.Errorf("group %q has no valid id in the image's /etc/group", s)
		}
		return gid, nil
	}
	return 0, fmt.Errorf("group %q is not in the image's /etc/group: name a numeric one in the module", s)
}

// maxGroups bounds the supplementary groups; the kernel's own bound is 65536.
const maxGroups = 64

// groupsOf lists the groups with member in them, other than primary.
func groupsOf(member string, primary uint32, group string) []uint32 {
	var gids []uint32
	for f := range entries(group, 4) {
		gid, ok, err := parseID(f[2])
		if err != nil || !ok || gid == primary || len(gids) == maxGroups {
			continue
		}
		for m := range strings.SplitSeq(f[3], ",") {
			if m == member {
				gids = append(gids, gid)
				break
			}
		}
	}
	return gids
}

// entries yields the fields of each line that has at least n of them.
func entries(file string, n int) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		for line := range strings.Lines(file) {
			f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
			if len(f) < n || f[0] == "" || strings.HasPrefix(f[0], "#") {
				continue
			}
			if !yield(f) {
				return
			}
		}
	}
}

// formatUser is the inverse of parseUser.
func formatUser(u user) string {
	s := fmt.Sprintf("%d:%d", u.uid, u.gid)
	for _, g := range u.groups {
		s += "," + strconv.FormatUint(uint64(g), 10)
	}
	return s
}

// parseUser reads uid:gid[,group…].
func parseUser(s string) (user, error) {
	ids, groups, _ := strings.Cut(s, ",")
	u, err := parseIDs(ids)
	if err != nil || groups == "" {
		return u, err
	}
	for g := range strings.SplitSeq(groups, ",") {
		gid, ok, err := parseID(g)
		if err != nil || !ok || len(u.groups) == maxGroups {
			return user{}, fmt.Errorf("user %q: want uid:gid[,group…]", s)
		}
		u.groups = append(u.groups, gid)
	}
	return u, nil
}
