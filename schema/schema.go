// Package schema holds every document that crosses the device boundary: the
// CUE definitions that a fleet repository is written in, the Go values they
// become, and Load, which turns one commit's tree into what one device shall
// run.
//
// The package decides nothing and touches nothing but the tree it is given.
// Everything else in Tidemark speaks in its values.
package schema
