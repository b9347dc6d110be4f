// Package bench measures Tidemark as it is used: real processes, containerd,
// registry, Git and NATS, on this machine. `make bench` runs it, prints the table
// and writes build/bench.json, one JSON object a line; `make bench ONLY=<regexp>`
// runs a part. It asserts nothing about speed.
package bench
