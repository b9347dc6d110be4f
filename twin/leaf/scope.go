package leaf

import (
	"reflect"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// answerTime is how long a module may take to answer a request.
const answerTime = twin.MaxCallTime

// modulePermissions are the scope of a module: its own prefix, of that only what
// twin.Prefix lists, and what it is allowed. Everything else is refused, JetStream
// included.
//
// The server lets a module answer a request wherever that names as its reply, past
// all permissions. So nobody may send a module a request but the agent, which
// names its own inbox; a module that could would have the answer published as
// the other's, to $JS.API or as a device's method, say. Methods of other modules
// are therefore called by way of the agent (P.call.<module>.<method>), and a
// module that hears subjects that others may publish to answers to the agent's
// inbox and nowhere else.
func modulePermissions(device, module string, allow schema.Allow) *server.Permissions {
	p := twin.Prefix(device, module)
	publish := []string{p + ".twin.get", p + ".twin.reported", p + ".twin.replace", p + ".out.>", p + ".hub.*"}
	subscribe := []string{p + ".twin.desired", p + ".in.>", p + ".rpc.>", twin.Inbox(device, module) + ".>"}
	for _, method := range allow.Call {
		if callee, name, err := splitMethod(method); err == nil {
			publish = append(publish, p+".call."+callee+"."+name)
		}
	}
	scope := &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: append(publish, allow.Publish...)},
		Subscribe: &server.SubjectPermission{Allow: append(subscribe, allow.Subscribe...)},
	}
	if len(allow.Subscribe) == 0 {
		// One answer to each request that it receives.
		scope.Response = &server.ResponsePermission{MaxMsgs: 1, Expires: answerTime}
	} else {
		scope.Publish.Allow = append(scope.Publish.Allow, twin.Inbox(device, "")+".>")
	}
	return scope
}

func samePermissions(a, b *server.Permissions) bool { return reflect.DeepEqual(a, b) }
