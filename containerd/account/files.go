package account

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
)

// maxUserFile bounds an image's /etc/passwd and /etc/group, in bytes.
const maxUserFile = 1 << 20

// Files are what an image says about its users. An empty one is as good as none.
type Files struct {
	Passwd string // content of /etc/passwd
	Group  string // content of /etc/group
}

// Read reads the files of the image that is mounted at root. A file that is not
// there is an empty one; one that is no regular file, or too large, is an error.
func Read(root string) (Files, error) {
	passwd, err := readInside(root, "etc/passwd")
	if err != nil {
		return Files{}, err
	}
	group, err := readInside(root, "etc/group")
	return Files{Passwd: passwd, Group: group}, err
}

// readInside reads a regular file below root; no file is an empty one. Links
// that lead out of root, devices and pipes are refused: an image may hold
// anything.
func readInside(dir, name string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("/%s is not a regular file", name)
	}
	if info.Size() > maxUserFile {
		return "", fmt.Errorf("/%s is larger than %d bytes", name, maxUserFile)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxUserFile))
	return string(b), err
}

var userNameRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]{0,63}\$?$`)

// Resolve gives the ids that spec ("", "user", "user:group", each a name
// or a number) means with these files, as Docker does: a group that is not
// named is the user's own, and 0 for a number that the files do not know;
// supplementary groups come with a user whose group is not named.
func (f Files) Resolve(spec string) (IDs, error) {
	if spec == "" {
		return IDs{}, nil
	}
	name, groupName, hasGroup := strings.Cut(spec, ":")
	u, known, err := findUser(name, f.Passwd)
	if err != nil {
		return IDs{}, fmt.Errorf("user %q: %w", spec, err)
	}
	if hasGroup {
		if u.GID, err = findGroup(groupName, f.Group); err != nil {
			return IDs{}, fmt.Errorf("user %q: %w", spec, err)
		}
		return u, nil
	}
	if known != "" && u.UID != 0 {
		u.Groups = groupsOf(known, u.GID, f.Group)
	}
	return u, nil
}

// findUser finds a name or a number in passwd and says under which name it is
// known there.
func findUser(s, passwd string) (u IDs, known string, err error) {
	id, numeric, err := parseID(s)
	if err != nil {
		return IDs{}, "", err
	}
	if !numeric && !userNameRE.MatchString(s) {
		return IDs{}, "", fmt.Errorf("%q is neither a number nor a user name", s)
	}
	for f := range entries(passwd, 4) { // name:password:uid:gid:…
		uid, uidOK, uidErr := parseID(f[2])
		gid, gidOK, gidErr := parseID(f[3])
		if uidErr != nil || gidErr != nil || !uidOK || !gidOK {
			if !numeric && f[0] == s {
				return IDs{}, "", fmt.Errorf("%q has no valid ids in the image's /etc/passwd", s)
			}
			continue
		}
		if numeric && uid == id || !numeric && f[0] == s {
			return IDs{UID: uid, GID: gid}, f[0], nil
		}
	}
	if numeric {
		return IDs{UID: id}, "", nil
	}
	return IDs{}, "", fmt.Errorf("%q is not in the image's /etc/passwd: name a numeric user in the module", s)
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
