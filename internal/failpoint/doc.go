// Package failpoint names the places of the agent where it hurts to be
// interrupted, so that a test can interrupt it exactly there.
//
// In a normal build Reach is an empty function which the compiler removes together
// with the names; a test proves it. Built with the tag "failpoint", the agent tells
// a controller (internal/fault) at the unix socket that the environment variable
// TIDEMARK_FAILPOINTS names, and goes on when the controller answers: by then the
// controller may have killed the agent, killed containerd or a shim, or cut the
// power.
package failpoint
