// Package fault breaks what a device stands on, for tests: its disk, its power,
// its processes, its clock, its link and its files.
//
//   - Disk: a filesystem of its own whose power can be cut, and which can be
//     filled to the last block.
//
// All of it needs root, and takes nothing of the machine's but a loop device,
// so that tests run beside each other.
package fault
