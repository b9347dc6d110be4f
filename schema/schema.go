// Package schema holds every document that crosses the device boundary: the
// CUE definitions that a fleet repository is written in (folder definitions),
// the Go values they become, and Load, which turns one commit's tree into what
// one device shall run.
//
//	Tree        the .cue files of a commit, within bounds        tree.go find.go
//	Load        evaluates a device's package, checks, decodes    load.go evaluate.go check.go
//	            faster where the sources prove the check         proven.go
//	Problem     what is wrong, where, and what to write          problems.go hint.go locate.go
//	Reported    CompileReported, the agent's check of reports    reported.go cheap.go export.go
//	Config      of the two daemons, with overrides               configfile.go paths.go
//	Scaffold    a new fleet repository                           scaffold.go
//
// The package decides nothing and touches nothing but the tree it is given.
// Everything else in Tidemark speaks in its values. Where the author of a tree
// is not the caller, package schema/sandbox evaluates it in a child process.
//
// What Load refuses is what stock `cue vet -c ./...` refuses, and what CUE does
// not know: directories and devices, circles of dependsOn, counts, sizes,
// ranges of durations, null and depth in twins, #reported that could take long
// to check, files embedded with @embed, modules of a registry or replaced ones.
package schema
