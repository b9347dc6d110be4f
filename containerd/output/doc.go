// Package output keeps what modules print, bounded, in files that the shims
// write to themselves: no process of ours stands between, so none that is dead
// or slow can block a module.
//
// # The files
//
//	<dir>/<module>.log     what the module printed, of all its runs
//	<dir>/marks/<module>   when which part of it was printed, where a run began
//
// A shim has the log open for appending and knows nothing of bounds, so a log is
// bounded beneath it: its oldest part becomes a hole (FALLOC_FL_PUNCH_HOLE). A
// hole takes no room, nothing is copied, nothing that is printed meanwhile is
// lost, and positions stay what they were, so a reader never loses its place and
// a keeper may be killed at any moment. ls shows the size with the hole, du
// without. Where a hole has grown to many times the bound it is cut out
// (FALLOC_FL_COLLAPSE_RANGE: ext4, XFS, F2FS), and the marks remember how much
// was; elsewhere it stays. A filesystem without holes loses the whole log
// whenever it is full, for a bound must hold; no filesystem on which containerd
// unpacks images is of that kind.
//
// # A full disk
//
// When a shim cannot write, it stops reading for good, and the module blocks for
// ever as soon as the pipe is full (containerd 1.6 and 2). Therefore:
//
//   - What a log needs next, a quarter of the bound, is allocated before it is
//     written. While the disk is full, a log makes room for that by keeping only an
//     eighth of the bound. This is what a quiet module costs on the disk.
//   - 256 KiB for all are held back to be given up when the filesystem needs room
//     to make a hole (XFS).
//   - A module whose log gets no room at all runs with its output going nowhere.
//   - Where a shim has stopped all the same, because a module printed faster than
//     room was made or no agent was there to make it, the next Observe finds out,
//     and the agent empties the pipe in the shim's place (Files.Rescue), until the
//     module ends. While the agent is away, such a module may block.
//
// # Who bounds
//
// Files.Run, in the agent, woken by the kernel when something is printed and
// never otherwise. Between two looks at a log are 0.2 s, and 25 ms once it grows
// fast; it is larger than its bound by what was printed between two looks. While
// no agent runs, nothing is bounded; the next one cuts at once. No bound of the
// kernel's own does: a quota, RLIMIT_FSIZE, and a small filesystem all make the
// write fail, which blocks the module; /dev/kmsg and the rings of tracefs are
// bounded and never fail, but tear long lines and do not survive a reboot.
//
// # Time
//
// With nothing between module and file, lines have no time of their own. The
// keeper notes, at most once a second, how far a log had come; see Log.Ago.
package output
