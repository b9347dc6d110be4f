package main

import (
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// TestClockThatCannotBeRight: a device without a battery for its clock boots in
// 1970, and the hub must not take its times at their word.
func TestClockThatCannotBeRight(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 3, n, 12, 0, 0, 0, time.UTC) }
	for name, c := range map[string]struct {
		now, commit, written time.Time
		synchronized         bool
		want                 schema.ClockReport
	}{
		"right":                   {day(9), day(8), day(7), true, schema.ClockReport{Trusted: true}},
		"set back a little":       {day(9).Add(-30 * time.Second), day(8), day(9), true, schema.ClockReport{Trusted: true}},
		"nothing known":           {day(9), time.Time{}, time.Time{}, true, schema.ClockReport{Trusted: true}},
		"nobody sets it":          {day(9), day(8), day(7), false, schema.ClockReport{Why: "nothing sets it: the kernel calls it unsynchronized"}},
		"before the commit":       {time.Unix(0, 0), day(8), day(7), true, schema.ClockReport{Why: "it is earlier than the newest commit, of 2026-03-08T12:00:00Z"}},
		"before what was written": {day(6), day(5), day(7), false, schema.ClockReport{Why: "it is earlier than 2026-03-07T12:00:00Z, which this device has written down"}},
	} {
		clock := &wallClock{synchronized: func() bool { return c.synchronized }}
		clock.wrote(c.written)
		clock.wrote(c.written.Add(-time.Hour)) // an older one changes nothing
		if got := clock.judge(c.now, c.commit); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}
