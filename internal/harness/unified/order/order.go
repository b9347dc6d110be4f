// Package order is what package unified and the first program of its machine
// agree on.
package order

// Order is what the machine's first program is told to do.
type Order struct {
	Modules  []string          // of the kernel, in the order in which they are loaded; files in the initial file system
	Keep     []string          // folders of the outer machine that are to be seen though something is mounted above them
	Overlay  map[string]string // folders of the outer machine that are to be writable, and where what is written goes
	Programs []Program         // what to run, one after the other, until one fails
	Env      []string          // of the programs; they find nothing else
}

// Program is a program on the machine's disk.
type Program struct {
	Dir  string   // working directory
	Args []string // the first one is its path
}

// Where things are, for both sides.
const (
	File   = "order.json"             // the order, in the initial file system
	Disk   = "/tmp"                   // where the machine's own disk is mounted
	Outer  = "outer"                  // 9p's tag of the outer machine's files
	Output = "/dev/ttyS1"             // takes what the programs print; the kernel has the first one
	Ended  = "unified: exit status"   // starts the last line of the output; the last program's exit status follows
	World  = "unified: the kernel is" // starts the first line, which tells what the machine is
)
