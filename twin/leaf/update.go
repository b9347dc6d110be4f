package leaf

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/ledger"
)

// update applies changes to reported, one after the other, and answers
// all when the last is on disk.
func (s *service) update(updates []*nats.Msg) {
	for {
		outcome, err := s.tryUpdate(updates)
		if errors.Is(err, ledger.ErrMoved) {
			continue // by Declare or Raise, which are rare
		}
		for i, m := range updates {
			switch {
			case outcome[i].err != nil && (err == nil || !outcome[i].looked):
				s.refuse(m, outcome[i].err)
			case err != nil:
				s.refuse(m, err)
			default:
				answer, _ := json.Marshal(twin.Answer{Version: outcome[i].version}) // two plain fields
				s.reply(m, answer)
			}
		}
		return
	}
}

// outcome is what becomes of one change.
type outcome struct {
	version uint64
	err     error
	looked  bool // it is refused because of the version of what is not yet on disk
}

// tryUpdate makes the new state without holding the store, since a check can
// take long, and commits it if the twin is still what it was made from.
func (s *service) tryUpdate(updates []*nats.Msg) ([]outcome, error) {
	outcomes := make([]outcome, len(updates))
	e, ok := s.twins.ledger.Get(s.module)
	if !ok || e.Document.Removed {
		return outcomes, &twin.Error{Code: twin.CodeNotFound, Message: "nothing is declared yet"}
	}
	base := e.Document.Properties.Reported
	next, reported := base, s.schema()
	for i, m := range updates {
		if err := twin.Precondition(next, m.Header); err != nil {
			outcomes[i] = outcome{err: err, looked: true}
			continue
		}
		next, outcomes[i].err = s.apply(next, m, reported)
		outcomes[i].version = next.Version
	}
	if next.Version == base.Version {
		return outcomes, nil
	}
	size, err := s.twins.ledger.Report(s.module, base.Version, next)
	if size > 0 {
		s.wrote(size)
	}
	return outcomes, err
}

// apply merges a patch into what is reported, or replaces that.
func (s *service) apply(present twin.Section, m *nats.Msg, reported *schema.ReportedSchema) (twin.Section, error) {
	if s.module == "" {
		return present, &twin.Error{Code: twin.CodeRefused, Message: "what the device reports is the agent's to say"}
	}
	object, err := twin.ReadPatch(m.Data)
	if err != nil {
		return present, err
	}
	var next twin.Section
	var changed bool
	if strings.HasSuffix(m.Subject, ".replace") {
		next, changed, err = twin.Replace(present, object, twin.MaxSection, time.Now())
	} else {
		next, changed, err = twin.Merge(present, object, time.Now())
	}
	if err != nil || !changed {
		return present, err
	}
	if reported != nil {
		if err := reported.Check(next.Values); err != nil {
			return present, schemaError(err)
		}
	}
	return next, nil
}

// schemaError is how a value is refused that the definition does not allow.
func schemaError(err error) *twin.Error {
	e := &twin.Error{Code: twin.CodeSchema, Message: err.Error()}
	var invalid *schema.InvalidError
	if errors.As(err, &invalid) && len(invalid.Problems) > 0 {
		e.Path, e.Message = invalid.Problems[0].Path, invalid.Problems[0].Message
	}
	return e
}
