// Package fault breaks what a device stands on, for tests: its disk, its power,
// its processes, its clock, its link and its files. docs/faults.md tells more.
//
//   - Disk: a filesystem of its own whose power can be cut, and which can be
//     filled to the last block.
//   - Machine: namespaces that end like a machine without power.
//   - Link, Proxy: a cable that can be cut; connections that end, stall or delay.
//   - Clock: the wall clock of programs that are built for it.
//   - Controller: what happens when an agent reaches a failpoint.
//   - Rot: damage to files.
//   - Hub: the other side of the link, with a disk and a power of its own.
//   - Device: all of them together, with containerd and an agent, and what is
//     promised of it (Invariants).
//   - Account: what modules were told of their messages, held against the hub.
//
// All of it needs root, and takes nothing of the real machine's but loop devices,
// interfaces and cgroups under names of its own, so that tests run beside each
// other.
package fault
