// Package twin is the documents that a device and its modules share with the
// cloud, and the client by which a module reaches its own.
//
// A twin has two halves. Desired comes from Git; reported comes from the module
// (or, for the device, from the agent). A module changes what it reports by JSON
// merge patch, and hears of each change to what is desired. Both halves carry a
// version that only ever rises. Whatever is answered is on the device's disk.
//
// A module hands messages over under names of its own (Client.Send); routes of
// the definition lead them to the hub and to inputs of other modules
// (Client.OnInput). It answers direct methods (Client.OnMethod) and calls others'
// (Client.Call). A person on the device has the same API, as the device.
//
// The package is what modules link, so it needs nothing but a NATS client:
//
//	client, err := twin.Connect(ctx)
//	version, err := client.Report(ctx, map[string]any{"temperature": 21.5})
//	err = client.Send(ctx, "alarms", body)
package twin
