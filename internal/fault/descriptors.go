package fault

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Kinds of descriptors whose number goes up and down by itself.
const (
	kindRegistry = "connection to the registry" // ends when it has idled for half a minute
	kindPack     = "pack of the clone"          // until the clone is compacted
)

// descriptors counts what a process has open, by kind; sockets by what they are
// connected to.
func descriptors(pid int) (map[string]int, error) {
	_, port, _ := net.SplitHostPort(registryHost)
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	registry := fmt.Sprintf(":%04X", number)
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
			name := file + " " + peer
			if strings.HasPrefix(file, "tcp") && strings.HasSuffix(peer, registry) {
				name = kindRegistry
			}
			sockets["socket:["+fields[column.inode]+"]"] = name
		}
	}
	entries, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return nil, err
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
		if strings.Contains(kind, "/clone/objects/pack/") || strings.Contains(kind, "/clone/incoming/") {
			kind = kindPack
		}
		count[kind]++
	}
	return count, nil
}

// enumerate says what was counted.
func enumerate(count map[string]int) string {
	var list []string
	for _, kind := range slices.Sorted(maps.Keys(count)) {
		list = append(list, fmt.Sprintf("%d %s", count[kind], kind))
	}
	return strings.Join(list, ", ")
}
