package hub

import "github.com/nats-io/nats-server/v2/server"

// The server's two accounts. The hub and people are in one, with JetStream, and
// devices in the other, without: nats-server 2.15 lets `$JS.ACK.` and `_R_.`
// through from a leaf whatever its permissions are, so a device in the account of
// the stream could acknowledge what was delivered to somebody else. In an account
// where nobody listens to them, they come nowhere.
//
// Streams cross, in each direction, and no services: for a request to a service
// the server makes a reply subject that the device may not publish to.
const (
	accountHub   = "HUB"
	accountFleet = "FLEET"

	accounts = `accounts {
  HUB {
    jetstream: enabled
    exports: [
      {stream: "devices.>", accounts: [FLEET]}
      {stream: "_INBOX.>", accounts: [FLEET]}
      {stream: "fleet.>", accounts: [FLEET]}
    ]
    imports: [
      {stream: {account: FLEET, subject: "up.>"}}
    ]
  }
  FLEET {
    exports: [
      {stream: "up.>", accounts: [HUB]}
    ]
    imports: [
      {stream: {account: HUB, subject: "devices.>"}}
      {stream: {account: HUB, subject: "_INBOX.>"}}
      {stream: {account: HUB, subject: "fleet.>"}}
    ]
  }
}
`
)

// withAccounts are options with the two accounts, which only a configuration can
// describe.
func withAccounts() (*server.Options, error) {
	o := &server.Options{}
	return o, o.ProcessConfigString(accounts)
}
