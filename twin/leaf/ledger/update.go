package ledger

import (
	"errors"
	"fmt"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// MaxVersion bounds versions that Raise sets: far above any that come about, and
// far below the last.
const MaxVersion = 1 << 52

// ErrMoved says that a twin changed while an update of it was made.
var ErrMoved = errors.New("twin changed meanwhile")

// undeclared refuses what only a declared twin takes.
func undeclared(module string) error {
	if module == "" {
		return &twin.Error{Code: twin.CodeNotFound, Message: "nothing is declared yet"}
	}
	return &twin.Error{Code: twin.CodeNotFound, Message: "no such module is declared"}
}

// Report makes next properties.reported of a twin, which was at version from when
// next was made of it, and returns how many bytes the document then has. An error
// is ErrMoved when it no longer is, CodeNotFound for a module that is not
// declared, or an error of the disk; nothing has changed then.
func (l *Ledger) Report(module string, from uint64, next twin.Section) (size int, err error) {
	err = l.commit(func(get func(string) (Entry, bool)) ([]Entry, error) {
		e, ok := get(module)
		if module != "" && (!ok || e.Document.Removed) {
			return nil, undeclared(module)
		}
		if e.Document.Properties.Reported.Version != from {
			return nil, ErrMoved
		}
		e.Document.Properties.Reported = next
		size = len(e.Document.Encode())
		return []Entry{e}, nil
	})
	return size, err
}

// Override lays o over what Git says of desired, for as long as the countdown, and
// returns the twin as it is then, with the override that was there before, nil for
// none. An error is an *twin.Error, and nothing has changed then.
func (l *Ledger) Override(module string, o twin.Override, c Countdown, now time.Time) (news twin.Document, replaced *twin.Override, err error) {
	news, err = l.alter(module, func(e Entry) (Entry, error) {
		replaced = e.Override()
		return e.overridden(o, c, now)
	})
	return news, replaced, err
}

// Clear ends the override of a twin and returns it, with the twin as it is then.
// An error is CodeNotFound where there is none.
func (l *Ledger) Clear(module string, now time.Time) (news twin.Document, ended twin.Override, err error) {
	news, err = l.alter(module, func(e Entry) (Entry, error) {
		o := e.Override()
		if o == nil {
			return e, &twin.Error{Code: twin.CodeNotFound, Message: "there is no override"}
		}
		ended = *o
		return e.laid(e.base(), nil, Countdown{}, now)
	})
	return news, ended, err
}

// alter commits a change of one twin that is declared.
func (l *Ledger) alter(module string, f func(Entry) (Entry, error)) (twin.Document, error) {
	var news Entry
	err := l.commit(func(get func(string) (Entry, bool)) ([]Entry, error) {
		e, ok := get(module)
		if !ok || e.Document.Removed {
			return nil, undeclared(module)
		}
		var err error
		news, err = f(e)
		return []Entry{news}, err
	})
	return news.Document, err
}

// Charge writes down how much of the overrides' time is left, where that has to
// be. That it cannot be written is told like every failure of the disk.
func (l *Ledger) Charge(clock Clock) {
	_ = l.commit(func(get func(string) (Entry, bool)) ([]Entry, error) {
		var charged []Entry
		for _, d := range l.Documents() {
			if e, _ := get(d.Module); clock.stale(e.Countdown) {
				e.Countdown = clock.charged(e.Countdown)
				charged = append(charged, e)
			}
		}
		return charged, nil
	})
}

// Raise lifts the versions of a twin above these, where they are below. It returns
// the twin if it is declared and its desired version rose, else nothing.
func (l *Ledger) Raise(module string, desired, reported uint64) (news []twin.Document, err error) {
	if desired > MaxVersion || reported > MaxVersion {
		return nil, fmt.Errorf("%d and %d are not versions that a twin can have reached", desired, reported)
	}
	err = l.commit(func(get func(string) (Entry, bool)) ([]Entry, error) {
		e, ok := get(module)
		if !ok {
			e.Document.Removed = module != "" // its versions wait for when it is declared
		}
		p := &e.Document.Properties
		raised := raise(&p.Desired.Version, desired)
		if raised && !e.Document.Removed {
			news = append(news, e.Document)
		}
		if !raise(&p.Reported.Version, reported) && !raised {
			return nil, nil
		}
		return []Entry{e}, nil
	})
	return news, err
}

func raise(version *uint64, floor uint64) bool {
	if *version >= floor {
		return false
	}
	*version = floor + 1
	return true
}
