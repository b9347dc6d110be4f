package outbox

import (
	"fmt"

	"github.com/tidemark-edge/tidemark/twin"
)

// plan is what the intake goes by: the routes, with their lanes. It does not
// change.
type plan struct {
	rules []rule
	open  []*lane // of the rules; nil where one could not be opened
}

func newPlan(t *table, lanes []*lane) *plan {
	p := &plan{rules: t.rules, open: make([]*lane, len(t.rules))}
	for i, r := range t.rules {
		for _, l := range lanes {
			if _, draining := l.route(); l.key == r.key() && !draining {
				p.open[i] = l
			}
		}
	}
	return p
}

// planned is the present plan.
func (o *Outbox) planned() *plan {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.plan
}

// lanes finds the lanes that take a message. failed is told of a condition that
// could not be decided: the route does not take the message.
func (p *plan) lanes(l *letter, failed func(route string, err error)) (out []*lane, err error) {
	for i, r := range p.rules {
		takes, err := r.takes(l.module, l.name, l.msg.Header, l.msg.Data)
		if err != nil {
			failed(r.Name, err)
		}
		if !takes {
			continue
		}
		if p.open[i] == nil {
			return nil, &twin.Error{Code: twin.CodeNoSpace, Message: fmt.Sprintf("route %s has no queue yet: there was no room for it on the device's disk, or the disk failed", r.Name)}
		}
		out = append(out, p.open[i])
	}
	return out, nil
}
