// Package store keeps images on the disk, in containerd: it brings verified ones
// there, says beforehand whether they fit, deletes what nothing needs, and makes
// the root filesystems of containers from them. A Store is a reconciler's Store;
// what it has more is for starting containers. It works with containerd 1.6 and 2.
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
// That links hold (see patient), or a registry keeps sending (see pace). That
// there is room: what deleting needs on a full disk is kept as ballast. That what a
// container wrote to its root filesystem survives a power cut: containerd syncs
// the record of that snapshot and never its directories (see isLost).
package store
