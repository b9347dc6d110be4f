package leaf

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/leaf/identity"
)

// Declare makes the twins those of a revision: properties.desired and tags of
// the device, properties.desired of each module. It admits exactly these modules
// to the leaf: those that are no longer declared lose their connections and
// their identity, while the versions of their twins are kept for when they
// return. What changed reaches its module once: as its file, as a message, and
// with the signal that the definition names. What somebody on the device set over
// it stays over it; see Override. Declaring the same again does nothing. It
// implements reconciler.Reporter.
func (l *Leaf) Declare(_ context.Context, desired schema.Desired) error {
	l.declaring.Lock()
	defer l.declaring.Unlock()
	if desired.Device != l.config.Device {
		return fmt.Errorf("declare: it is the definition of device %q, and this is %q", desired.Device, l.config.Device)
	}
	if err := twin.CheckTags(desired.Tags); err != nil {
		return fmt.Errorf("declare: tags: %w", err)
	}
	schemas := map[string]*schema.ReportedSchema{"": nil}
	keep := map[string]bool{}
	for _, m := range desired.Modules {
		compiled, err := compileReported(m.Twin.Reported)
		if err != nil {
			return fmt.Errorf("declare: twin of module %s: %w", m.Name, err)
		}
		schemas[m.Name], keep[m.Name] = compiled, true
	}
	now := time.Now()
	news, ended, err := l.ledger.Declare(desired, now)
	if err != nil {
		return fmt.Errorf("declare: %w", err)
	}
	for _, e := range ended {
		l.overrides.note(OverrideEvent{At: now, Module: e.Module, What: e.Why, Override: e.Override})
	}
	l.admitAll(desired.Modules)
	l.doors.Keep(keep)
	errServe := l.twins.serve(schemas)
	errForget := identity.Forget(l.config.RunDir, keep)
	errTell := l.tell(news)
	if err := errors.Join(errServe, errForget, errTell); err != nil {
		return fmt.Errorf("declare: %w", err)
	}
	return nil
}
