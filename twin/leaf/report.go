package leaf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/ledger"
)

const (
	// maxReport bounds what the agent itself reports, in bytes: it says more than
	// twin.MaxSection holds on a device with many modules.
	maxReport = 512 << 10

	// What a shortened report still says, in bytes. With as many modules as a
	// device may have it fits.
	shortDescription = 100  // of one module
	shortReason      = 8192 // of the device
)

// Report makes report properties.reported of the device. A report that says
// nothing new changes nothing. One that is too large is shortened: evidence and
// output go first, and the ends of what describes errors, because a device with many
// modules that all fail has the most to say. It implements reconciler.Reporter.
func (l *Leaf) Report(_ context.Context, report schema.Report) error {
	err := l.report(report)
	var refusal *twin.Error
	tooLarge := errors.As(err, &refusal) && refusal.Code == twin.CodeTooLarge
	if tooLarge {
		err = l.report(shortened(report))
	}
	if was := l.shortens.Swap(tooLarge); tooLarge && !was {
		l.warn(fmt.Errorf("report: %w; reporting without evidence and long descriptions", refusal))
	}
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

func (l *Leaf) report(report schema.Report) error {
	data, err := json.Marshal(report)
	if err != nil {
		return err
	}
	var values map[string]any
	if err := json.Unmarshal(data, &values); err != nil {
		return err
	}
	for {
		e, _ := l.ledger.Get("")
		present := e.Document.Properties.Reported
		next, changed, err := twin.Replace(present, values, maxReport, time.Now())
		if err != nil || !changed {
			return err
		}
		if _, err = l.ledger.Report("", present.Version, next); !errors.Is(err, ledger.ErrMoved) {
			return err
		}
	}
}

// shortened is the report with less about each module. The original stays as it
// is.
func shortened(report schema.Report) schema.Report {
	report.LastDesiredStatus.Description = cut(report.LastDesiredStatus.Description, shortReason)
	if report.Refused != nil {
		refused := *report.Refused
		refused.Reason = cut(refused.Reason, shortReason)
		report.Refused = &refused
	}
	report.Modules = maps.Clone(report.Modules)
	for name, m := range report.Modules {
		m.StatusDescription, m.Evidence, m.Output = cut(m.StatusDescription, shortDescription), nil, ""
		report.Modules[name] = m
	}
	return report
}

// cut leaves the first most bytes of a text.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
