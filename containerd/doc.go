// Package containerd runs modules as containerd containers. A Runtime is a
// reconciler's hand: it says what exists and does what it is told, each call
// idempotent, and decides nothing. It works with containerd 1.6 and 2.
//
// # What it remembers, and where
//
// Nothing in memory that matters. A container carries in its labels the
// module, the hash of the definition, the commit, the restarts and how to be
// stopped. An agent that is killed and started again therefore finds everything
// as it left it, and touches no running container. What it has images from, and
// how those survive a power cut, is package store's.
//
// Everything found in the configured namespace is the runtime's to report and
// to remove, whoever made it: a namespace is not shared.
//
// # What it does not rely on
//
// That containerd or a shim lives. Either may be killed between any two steps,
// and leave a module running that nobody knows of (see bury), or something that
// containerd itself never gets rid of (see debris.go). Nor that there is room on
// the disk: what a module needs to run again after a crash is there already, and
// what should be written down is remembered instead (see note). A container whose
// record was changed by somebody else is reported, and not run again (see
// drift.go). Nor that the files are whole that containerd itself keeps (see package
// salvage).
//
// # The folders
//
// Package store keeps images on the disk, and makes root filesystems from them;
// specification draws what a module may do and mounts what it may have; output
// keeps what modules print; probe asks them; database and salvage look after a
// containerd whose own files are damaged; account, cgroup and keyed are small parts
// that several of them need.
package containerd
