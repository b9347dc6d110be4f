package main

import (
	"context"
	"encoding/json"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf"
)

// The direct methods of the device, devices.<device>.rpc.<name>, that the agent
// answers and the commands of people call.
const (
	methodStatus    = "status"    // answers schema.Report
	methodPlan      = "plan"      // takes schema.Desired, answers reconciler.Plan
	methodReconcile = "reconcile" // looks at the fleet repository now; answers {}
)

// handleMethods answers the commands of people on this device. permits says what
// the device's owner does not allow.
func handleMethods(l *leaf.Leaf, r *reconciler.Reconciler, permits func(schema.Desired) error) error {
	methods := map[string]func(context.Context, []byte) ([]byte, error){
		methodStatus: func(context.Context, []byte) ([]byte, error) { return json.Marshal(r.Report()) },
		methodPlan: func(ctx context.Context, body []byte) ([]byte, error) {
			var desired schema.Desired
			if err := json.Unmarshal(body, &desired); err != nil {
				return nil, &twin.Error{Code: twin.CodeMalformed, Message: err.Error()}
			}
			if err := permits(desired); err != nil {
				return nil, &twin.Error{Code: twin.CodeRefused, Message: err.Error()}
			}
			plan, err := r.Preview(ctx, desired)
			if err != nil {
				return nil, err
			}
			if plan == nil {
				plan = reconciler.Plan{}
			}
			return json.Marshal(plan)
		},
		methodReconcile: func(context.Context, []byte) ([]byte, error) { r.Moved(); return []byte("{}"), nil },
	}
	for name, f := range methods {
		if err := l.Handle(name, f); err != nil {
			return err
		}
	}
	return nil
}
