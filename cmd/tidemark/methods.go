package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf"
)

// The direct methods of the device, devices.<device>.rpc.<name>, that the agent
// answers and the commands of people call.
const (
	methodStatus     = "status"          // answers schema.Report
	methodPlan       = "plan"            // takes schema.Desired, answers reconciler.Plan
	methodReconcile  = "reconcile"       // takes reconciler.Request, looks at the fleet repository now; answers {}
	methodHistory    = "history"         // answers []schema.Event, oldest first
	methodSuspend    = "suspend"         // takes reconciler.Request, answers schema.Order
	methodResume     = "resume"          // takes reconciler.Request, answers the schema.Order that it ended, or null
	methodRollback   = "rollback"        // takes reconciler.Request, answers reconciler.Rollback
	methodIdentities = "identity-list"   // answers []leaf.ModuleIdentity
	methodRotate     = "identity-rotate" // takes rotation, answers the leaf.ModuleIdentity
	methodTwinSet    = "twin-set"        // takes override, answers overridden
	methodTwinUnset  = "twin-unset"      // takes override, answers the twin.Override that it ended
	methodRetry      = "retry"           // takes reconciler.Request, answers {"revision": …}, of what is tried again
)

// methods are what answers the commands of people on this device.
type methods struct {
	leaf       *leaf.Leaf
	reconciler *reconciler.Reconciler
	permits    func(schema.Desired) error                               // what the device's owner does not allow
	look       func(context.Context, schema.Report) schema.Surroundings // as they are now
}

// handle has the leaf answer all of them.
func (m methods) handle() error {
	for name, f := range m.all() {
		if err := m.leaf.Handle(name, f); err != nil {
			return err
		}
	}
	return nil
}

// all are the methods, by name.
func (m methods) all() map[string]func(context.Context, []byte) ([]byte, error) {
	r := m.reconciler
	return map[string]func(context.Context, []byte) ([]byte, error){
		methodStatus: func(ctx context.Context, _ []byte) ([]byte, error) {
			report := r.Report()
			report.Surroundings = m.look(ctx, report)
			return json.Marshal(report)
		},
		methodPlan: func(ctx context.Context, body []byte) ([]byte, error) {
			var desired schema.Desired
			if err := readBody(body, &desired); err != nil {
				return nil, err
			}
			if err := m.permits(desired); err != nil {
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
		methodReconcile: order(func(q reconciler.Request) (struct{}, error) {
			m.leaf.Relink()
			return struct{}{}, r.Reconcile(q)
		}),
		methodHistory: func(context.Context, []byte) ([]byte, error) {
			return json.Marshal(append([]schema.Event{}, r.History()...))
		},
		methodIdentities: m.identities,
		methodRotate:     m.rotate,
		methodTwinSet:    m.setOverride,
		methodTwinUnset:  m.clearOverride,
		methodSuspend:    order(r.Suspend),
		methodResume:     order(r.Resume),
		methodRollback:   order(r.Rollback),
		methodRetry: order(func(q reconciler.Request) (map[string]schema.Revision, error) {
			again, err := r.Retry(q)
			if again.IsZero() {
				return map[string]schema.Revision{}, err
			}
			return map[string]schema.Revision{"revision": again}, err
		}),
	}
}

// order makes a method of what a person may order. Who orders something over the
// link is not known here, only what the hub says.
func order[T any](do func(reconciler.Request) (T, error)) func(context.Context, []byte) ([]byte, error) {
	return func(ctx context.Context, body []byte) ([]byte, error) {
		var q reconciler.Request
		if err := readBody(body, &q); err != nil {
			return nil, err
		}
		if leaf.FromHub(ctx) && q.By != "" {
			q.By = "hub:" + q.By
		}
		answer, err := do(q)
		if err != nil {
			return nil, err
		}
		return json.Marshal(answer)
	}
}

// readBody reads what a method takes.
func readBody(body []byte, into any) error {
	if err := json.Unmarshal(body, into); err != nil {
		return &twin.Error{Code: twin.CodeMalformed, Message: fmt.Sprintf("the body is not what the method takes: %v", err)}
	}
	return nil
}

// asRequest is who asks for something that is no reconciler's, and why.
func asRequest(ctx context.Context, by, reason string) (reconciler.Request, error) {
	q := reconciler.Request{By: by, Reason: reason}
	if leaf.FromHub(ctx) && q.By != "" {
		q.By = "hub:" + q.By
	}
	if err := q.Check(false); err != nil {
		return q, &twin.Error{Code: twin.CodeMalformed, Message: err.Error()}
	}
	return q, nil
}
