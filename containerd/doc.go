// Package containerd runs modules as containerd containers. A Runtime is a
// reconciler's hand: it says what exists and does what it is told, each call
// idempotent, and decides nothing. It works with containerd 1.6 and 2.
//
// # What it remembers, and where
//
// Nothing in memory that matters. A container carries in its labels the
// module, the hash of the definition, the commit, the restarts and how to be
// stopped; an image record carries the marker that its files have reached the
// disk. An agent that is killed and started again therefore finds everything
// as it left it, and touches no running container.
//
// Everything found in the configured namespace is the runtime's to report and
// to remove, whoever made it: a namespace is not shared.
//
// # What keeps an image on the disk
//
// A pull holds a lease without expiry, so that a download of days is neither
// collected nor begun anew. It ends with an image record, which is a root of
// containerd's garbage collection: record → manifest → config → snapshots. A
// container record is a root of its own snapshot, and is written before the
// snapshot is made, so that there is no moment without an owner.
//
// containerd commits a snapshot before its files are on the disk
// (containerd#5854, #8895): after a power cut a committed snapshot can hold
// empty files, and unpacking again changes nothing. So an image counts as
// ready only with a marker that is set after the filesystem was synced, and
// what a former boot left unmarked is purged together with its snapshots.
//
// # What it does not rely on
//
// That containerd or a shim lives. Either may be killed between any two steps,
// and leave a module running that nobody knows of (see bury), or something that
// containerd itself never gets rid of (see debris.go). Nor that there is room on
// the disk: what a module needs to run again after a crash is there already, and
// what should be written down is remembered instead (see note). Nor that what a
// container wrote to its root filesystem survives a power cut: containerd syncs
// the record of that snapshot and never its directories (see isLost). A container
// whose record was changed by somebody else is reported, and not run again (see
// drift.go).
//
// # What a module may do
//
// The OCI specification is wholly ours (see specification): no capability, no
// new privileges, containerd's default seccomp profile, masked paths, a cgroup
// of its own, numeric user, no device but the standard ones, no host path but
// those that the device's owner allows. Labels of images are never copied
// (CVE-2026-53488).
package containerd
