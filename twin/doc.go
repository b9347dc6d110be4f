// Package twin is the documents that a device and its modules share with the
// cloud, and the client by which a module reaches its own.
//
// A twin has two halves. Desired comes from Git; reported comes from the module
// (or, for the device, from the agent). A module changes what it reports by JSON
// merge patch, and hears of each change to what is desired. Both halves carry a
// version that only ever rises. Whatever is answered is on the device's disk.
//
// The package is what modules link, so it needs nothing but a NATS client:
//
//	client, err := twin.Connect(ctx)
//	err = client.OnDesired(func(s twin.Section) { … })
//	version, err := client.Report(ctx, map[string]any{"temperature": 21.5})
package twin
