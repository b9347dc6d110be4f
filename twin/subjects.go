package twin

import "strings"

// Prefix is the subject prefix that is the scope of an identity: of the device
// when module is empty, of the module otherwise. One API serves both below it:
//
//	P.twin.get       request  the whole twin
//	P.twin.reported  request  merge patch; answers the new version, or an error; see HeaderIfMatch
//	P.twin.replace   request  all of reported anew; answers the same
//	P.twin.desired   publish  by the agent, when desired changed
//	P.out.<name>     request  by the module; answered with an Answer once it is on disk
//	P.in.<name>      request  to the module: a message that was routed to it, see Message; an empty answer takes it
//	P.rpc.<name>     request  direct methods; see HeaderTimeout and ReadReply
//	P.hub.<name>     request  by the module: a service at the hub; refused at once while there is no link
//	P.call.<m>.<n>   request  by the module: method n of module m, where the definition allows it; by way of the agent, because whoever answers a request publishes where that says, with rights of its own
//
// Names are DNS labels, so no name can hold a dot or a wildcard.
func Prefix(device, module string) string {
	if module == "" {
		return "devices." + device
	}
	return "devices." + device + ".modules." + module
}

// Subjects between a device and the hub. A device may publish to these of its
// own, and subscribe to FleetMoved, to devices.<device>.rpc.>, to
// devices.<device>.modules.*.rpc.* and below its own inbox _INBOX.<device>.,
// nothing else.
//
//	up.<device>.messages              request  a Batch, answered with a Standing when it is on the hub's disk
//	up.<device>.twin                  request  newest document of one twin, answered when the hub has stored it
//	up.<device>.call.<module>.<name>  request  a module's call of a service at the hub
//	up.<device>.answer.>              publish  answers to the hub's calls of direct methods, which name it as reply
//	fleet.moved                       publish  by the hub: the fleet repository has a new commit
//
// What the hub stores it publishes itself, to subjects that no device can reach:
//
//	messages.<device>.<lane>.out.<module>.<name>  a message
//	messages.<device>.<lane>.lost                 a Lost: a range that does not come, in its place
const FleetMoved = "fleet.moved"

// Up is the prefix of everything that a device sends to the hub.
func Up(device string) string { return "up." + device }

// UpMessages is where a device sends a Batch; the answer is a Standing.
func UpMessages(device string) string { return Up(device) + ".messages" }

// UpCall is where a device passes on a module's call of a service at the hub.
func UpCall(device, module, name string) string { return Up(device) + ".call." + module + "." + name }

// Lane is the prefix of the subjects of one lane in the hub's stream.
func Lane(device, lane string) string { return "messages." + device + "." + lane }

// LaneOut is the subject of a module's message in the hub's stream.
func LaneOut(device, lane, module, name string) string {
	return Lane(device, lane) + ".out." + module + "." + name
}

// LaneLost is the subject of a Lost in the hub's stream.
func LaneLost(device, lane string) string { return Lane(device, lane) + ".lost" }

// Late is the lane of what waited, beside that of what is new. No route's name
// has a colon.
func Late(lane string) string { return lane + ":late" }

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
