package admission

import (
	"github.com/nats-io/nats-server/v2/server"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// answerTime is how long a module may take to answer a request.
const answerTime = twin.MaxCallTime

// scope is what a module may: its own prefix, of that only what
// twin.Prefix lists, and what it is allowed. Everything else is refused, JetStream
// included.
//
// The server lets a module answer a request wherever that names as its reply, past
// all permissions. So nobody may send a module a request but the agent, which
// names its own inbox; a module that could would have the answer published as
// the other's, to $JS.API or as a device's method, say. Methods of other modules
// are therefore called by way of the agent (P.call.<module>.<method>), and a
// module that hears subjects that others may publish to answers to the agent's
// inboxes and nowhere else; which are in use it cannot foresee (twin.RequestMsg).
func scope(device, module string, allow schema.Allow) *server.Permissions {
	p := twin.Prefix(device, module)
	publish := []string{p + ".twin.get", p + ".twin.reported", p + ".twin.replace", p + ".out.>", p + ".hub.*"}
	subscribe := []string{p + ".twin.desired", p + ".in.>", p + ".rpc.>", twin.Inbox(device, module) + ".>"}
	for _, method := range allow.Call {
		if callee, name, err := splitMethod(method); err == nil {
			publish = append(publish, p+".call."+callee+"."+name)
		}
	}
	may := &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: append(publish, allow.Publish...)},
		Subscribe: &server.SubjectPermission{Allow: append(subscribe, allow.Subscribe...)},
	}
	if len(allow.Subscribe) == 0 {
		// One answer to each request that it receives.
		may.Response = &server.ResponsePermission{MaxMsgs: 1, Expires: answerTime}
	} else {
		may.Publish.Allow = append(may.Publish.Allow, twin.Inbox(device, "")+".>")
	}
	return may
}
