package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf"
)

// override is what the method twin-set takes, and, without patch and time, what
// twin-unset does.
type override struct {
	Module string          `json:"module,omitempty"` // empty: the device's own twin
	Patch  map[string]any  `json:"patch,omitempty"`  // merge patch over desired
	For    schema.Duration `json:"for,omitempty"`    // how long, while the machine is on; 0: until it is unset
	By     string          `json:"by"`               // who, as they say
	Reason string          `json:"reason,omitempty"`
}

// overridden is what twin-set answers.
type overridden struct {
	Override twin.Override  `json:"override"`
	Replaced *twin.Override `json:"replaced,omitempty"` // that was in force before
}

// setOverride answers twin-set.
func (m methods) setOverride(ctx context.Context, body []byte) ([]byte, error) {
	q, err := readOverride(ctx, body)
	if err != nil {
		return nil, err
	}
	replaced, err := m.leaf.Override(ctx, q.Module, twin.Override{Patch: q.Patch, By: q.By, Reason: q.Reason}, time.Duration(q.For))
	if err != nil {
		return nil, err
	}
	answer := overridden{Replaced: replaced}
	for _, o := range m.leaf.Overrides() {
		if o.Module == q.Module {
			answer.Override = o.Override
		}
	}
	return json.Marshal(answer)
}

// clearOverride answers twin-unset.
func (m methods) clearOverride(ctx context.Context, body []byte) ([]byte, error) {
	q, err := readOverride(ctx, body)
	if err != nil {
		return nil, err
	}
	was, err := m.leaf.Clear(ctx, q.Module, q.By)
	if err != nil {
		return nil, err
	}
	return json.Marshal(was)
}

func readOverride(ctx context.Context, body []byte) (override, error) {
	var q override
	if err := readBody(body, &q); err != nil {
		return q, err
	}
	if q.Module != "" {
		if err := schema.CheckName(q.Module); err != nil {
			return q, &twin.Error{Code: twin.CodeMalformed, Path: "module", Message: err.Error()}
		}
	}
	request, err := asRequest(ctx, q.By, q.Reason)
	q.By = request.By
	return q, err
}

// overrideEvent is what became of an override, for the history.
func overrideEvent(e leaf.OverrideEvent) schema.Event {
	what := whose(e.Module)
	event := schema.Event{At: e.At, Kind: schema.EventOverridden, By: e.By, Reason: fmt.Sprintf("%s: %s, set by %s", what, e.What, e.Override.By)}
	if e.What == leaf.OverrideSet {
		event.Kind, event.Reason = schema.EventOverride, what
		if e.Override.Reason != "" {
			event.Reason += ": " + e.Override.Reason
		}
	}
	return event
}

// newestWritten is the newest time in the twins that are on the disk.
func newestWritten(l *leaf.Leaf) time.Time {
	var newest time.Time
	for _, d := range l.Documents() {
		for _, s := range []twin.Section{d.Properties.Desired, d.Properties.Reported} {
			if at := lastUpdated(s.Metadata); at.After(newest) {
				newest = at
			}
		}
	}
	return newest
}
