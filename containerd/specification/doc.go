// Package specification says what a module may do: it draws the OCI specification of
// its container, and makes what it mounts. It asks no daemon.
//
// The specification is wholly ours: no capability, no new privileges, containerd's
// default seccomp profile, masked paths, a cgroup of its own, numeric user, no
// device but the standard ones, no host path but those that the device's owner
// allows. Labels of images are never copied (CVE-2026-53488).
package specification
