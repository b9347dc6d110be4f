package twin

import "strings"

// Prefix is the subject prefix that is the scope of an identity: of the device
// when module is empty, of the module otherwise. One API serves both below it:
//
//	P.twin.get       request  the whole twin
//	P.twin.reported  request  merge patch; answers the new version, or an error
//	P.twin.desired   publish  by the agent, when desired changed
//	P.out.<name>     publish  by the module; acknowledged once it is on disk
//	P.in.<name>      subscribe  messages routed to the module
//	P.rpc.<name>     request  direct methods
//
// Names are DNS labels, so no name can hold a dot or a wildcard.
func Prefix(device, module string) string {
	if module == "" {
		return "devices." + device
	}
	return "devices." + device + ".modules." + module
}

// Subjects between a device and the hub. A device may publish below
// up.<device>. and subscribe to FleetMoved and below its own inbox
// _INBOX.<device>., nothing else.
//
//	up.<device>.out.<module>.<name>  publish  into the hub's stream of messages
//	up.<device>.dropped              publish  into the same stream: a range of messages that never comes
//	up.<device>.twin                 request  newest document of one twin, answered when the hub has stored it
//	up.<device>.resume               request  where the hub's stream stands for this device
//	up.<device>.answer.>             publish  answers to the hub's calls of devices.<device>.rpc.<name>, which name it as reply
//	fleet.moved                      publish  by the hub: the fleet repository has a new commit
const FleetMoved = "fleet.moved"

// Up is the prefix of everything that a device sends to the hub.
func Up(device string) string { return "up." + device }

// Inbox is the prefix of the reply subjects of an identity, without the final
// dot. A module may subscribe only below its own, so every client that makes
// requests has to be told it (in nats.go: nats.CustomInboxPrefix):
//
//	_INBOX.devices.<device>.modules.<module>   of a module: _INBOX. and its Prefix
//	_INBOX.<device>                            of the device
func Inbox(device, module string) string {
	if module == "" {
		return "_INBOX." + device
	}
	return "_INBOX." + Prefix(device, module)
}

// MayAnswer reports whether an answer to a module's request may go to reply:
// only below the module's own inbox. Whoever answers modules has to ask,
// because the answer is published with the answerer's permissions, and a module
// that names another's subject as its reply would speak there in our name.
func MayAnswer(device, module, reply string) bool {
	return strings.HasPrefix(reply, Inbox(device, module)+".") && !strings.ContainsAny(reply, "*> \t\r\n")
}
