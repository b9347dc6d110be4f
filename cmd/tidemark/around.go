package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// printSurroundings writes for people what there is to say: the link, lanes that
// wait or lose, messages that go nowhere, overrides, and a clock that is wrong.
func printSurroundings(w io.Writer, s schema.Surroundings) {
	if h := s.Hub; h != nil && h.Linked {
		fmt.Fprintf(w, "hub\t%s, linked since %s\n", h.URL, clock(h.Since))
	} else if h != nil {
		fmt.Fprintf(w, "hub\t%s, not linked since %s\n", h.URL, clock(h.Since))
		if h.Problem != "" {
			fmt.Fprintf(w, "\t%s\n", h.Problem)
		}
	}
	printOutbox(w, s.Outbox)
	for _, name := range slices.Sorted(maps.Keys(s.Unrouted)) {
		fmt.Fprintf(w, "unrouted\t%d messages of %s: no route takes them\n", s.Unrouted[name], name)
	}
	for _, o := range s.Overrides {
		fmt.Fprintf(w, "drift\t%s\n", driftLine(o))
	}
	if c := s.Clock; c != nil && !c.Trusted {
		fmt.Fprintf(w, "clock\tnot to be trusted: %s\n", c.Why)
	}
}

// printOutbox writes the lanes that have something to say.
func printOutbox(w io.Writer, o *schema.OutboxReport) {
	if o == nil {
		return
	}
	if o.Problem != "" {
		fmt.Fprintf(w, "outbox\t%s\n", o.Problem)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Lanes)) {
		l := o.Lanes[name]
		var parts []string
		if l.Pending > 0 {
			parts = append(parts, fmt.Sprintf("%d messages wait, since %s, %s on the disk", l.Pending, clock(l.Oldest), schema.Bytes(l.Bytes).Short()))
		}
		if l.Refused > 0 {
			parts = append(parts, fmt.Sprintf("%d refused", l.Refused))
		}
		for _, reason := range slices.Sorted(maps.Keys(l.Lost)) {
			parts = append(parts, fmt.Sprintf("%d lost (%s)", l.Lost[reason], reason))
		}
		if l.Problem != "" && (l.Pending > 0 || len(parts) == 0) {
			parts = append(parts, l.Problem)
		}
		if len(parts) > 0 {
			fmt.Fprintf(w, "lane %s\t%s\n", name, strings.Join(parts, "; "))
		}
	}
}

// driftLine is an override in one line.
func driftLine(o schema.OverrideReport) string {
	line := fmt.Sprintf("desired of %s, set by %s at %s", whose(o.Module), o.By, clock(o.At))
	if !o.Until.IsZero() {
		line += ", until " + o.Until.Local().Format(time.DateTime)
	}
	if o.Reason != "" {
		line += ": " + o.Reason
	}
	return line
}

// whose is a twin's owner in words.
func whose(module string) string {
	if module == "" {
		return "the device itself"
	}
	return module
}
