package fault

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// descriptors says what a process has open: each kind with its number, sockets by
// what they are connected to.
func descriptors(pid int) string {
	proc := fmt.Sprintf("/proc/%d", pid)
	sockets := map[string]string{}
	for file, column := range map[string]struct{ inode, peer int }{"tcp": {9, 2}, "tcp6": {9, 2}, "unix": {6, 7}} {
		table, err := os.ReadFile(filepath.Join(proc, "net", file))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(table)) {
			fields := strings.Fields(line)
			if len(fields) <= column.inode {
				continue
			}
			peer := "" // the client's end of a Unix socket has no name
			if len(fields) > column.peer {
				peer = fields[column.peer]
			}
			sockets["socket:["+fields[column.inode]+"]"] = file + " " + peer
		}
	}
	entries, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return err.Error()
	}
	count := map[string]int{}
	for _, entry := range entries {
		name, err := os.Readlink(filepath.Join(proc, "fd", entry.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if socket, ok := sockets[name]; ok {
			name = socket
		}
		kind, _, _ := strings.Cut(name, ":[")
		count[kind]++
	}
	var list []string
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		list = append(list, fmt.Sprintf("%d %s", count[kind], kind))
	}
	return strings.Join(list, ", ")
}
