package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

func TestWhoOrdersIsKnown(t *testing.T) {
	t.Setenv("SUDO_USER", "anna")
	t.Setenv("USER", "root")
	if who := whoami(); !strings.HasPrefix(who, "anna@") {
		t.Errorf("it is %q", who)
	}
	t.Setenv("SUDO_USER", "")
	t.Setenv("USER", "")
	if who := whoami(); strings.HasPrefix(who, "@") {
		t.Errorf("it is %q", who)
	}
}

func TestAnOrderThatIsNoneIsMalformed(t *testing.T) {
	do := order(func(q reconciler.Request) (reconciler.Request, error) {
		if q.By == "" {
			return q, errors.New("say who orders it")
		}
		return q, nil
	})
	var refusal *twin.Error
	if _, err := do(context.Background(), []byte("[]")); !errors.As(err, &refusal) || refusal.Code != twin.CodeMalformed {
		t.Errorf("no object: %v", err)
	}
	if _, err := do(context.Background(), []byte("{}")); err == nil {
		t.Error("ordered by nobody")
	}
	answer, err := do(context.Background(), []byte(`{"by":"anna","hold":true}`))
	var q reconciler.Request
	if err != nil || json.Unmarshal(answer, &q) != nil || q != (reconciler.Request{By: "anna", Hold: true}) {
		t.Errorf("answered %s, %v", answer, err)
	}
}

// What a person reads on a device that somebody suspended, and where something
// is wrong.
func TestStatusSaysWhoWhatAndWhy(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local)
	image := schema.Image("registry.example.com/sensor@sha256:" + strings.Repeat("a", 64))
	s := schema.Report{
		Phase:             schema.PhaseSuspended,
		Revision:          schema.Revision{Commit: strings.Repeat("1", 40), Subject: "Greet twice", Signer: "alice@example.com"},
		LastGood:          schema.Revision{Commit: strings.Repeat("1", 40)},
		Newest:            schema.Revision{Commit: strings.Repeat("3", 40), Subject: "Try this"},
		LastDesiredStatus: schema.Status{Code: schema.CodeFailed},
		Order:             &schema.Order{Kind: schema.OrderSuspend, By: "anna@hannover01", At: at, Reason: "fair"},
		Refused: &schema.Refusal{Revision: schema.Revision{Commit: strings.Repeat("2", 40)}, Phase: schema.PhaseGating, Module: "sensor",
			At: at, Reason: "sensor exited with code 3", Output: "open /dev/ttyUSB0\nno such device\n"},
		Modules: map[string]schema.ModuleReport{
			"sensor": {RuntimeStatus: schema.RuntimeBackoff, StatusDescription: "exited with code 3, starts again at 2026-03-04T05:07:00Z",
				Image: image, Restarts: 2, StartedAt: at, Output: "panic: cold\n"},
			"spare": {RuntimeStatus: schema.RuntimeRunning, Image: image, PID: 12, StartedAt: at, Downtime: schema.Duration(412 * time.Millisecond),
				Evidence: &schema.Evidence{Rule: "release"}, Output: "not shown: it runs\n"},
		},
		Surroundings: schema.Surroundings{
			Hub: &schema.HubReport{URL: "tls://hub:7422", Since: at},
			Outbox: &schema.OutboxReport{Lanes: map[string]schema.LaneReport{
				"alarms": {Pending: 3, Bytes: 4096, Oldest: at, Lost: map[string]uint64{"ttl": 2}},
				"bulk":   {Delivered: 12}, // all is well: not shown
			}},
			Unrouted:  map[string]uint64{"sensor/noise": 7},
			Clock:     &schema.ClockReport{Why: "nothing sets it"},
			Overrides: []schema.OverrideReport{{Module: "sensor", By: "anna@hannover01", Reason: "too loud", At: at, Until: at.Add(8 * time.Hour)}},
		},
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	printReport(w, "hannover01", s)
	w.Flush()
	want := `device       hannover01
phase        suspended
order        suspended by anna@hannover01 since 2026-03-04 05:06:07: fair
revision     111111111111 Greet twice, signed by alice@example.com
newest       333333333333 Try this
hub          tls://hub:7422, not linked since 2026-03-04 05:06:07
lane alarms  3 messages wait, since 2026-03-04 05:06:07, 4.0 KiB on the disk; 2 lost (ttl)
unrouted     7 messages of sensor/noise: no route takes them
drift        desired of sensor, set by anna@hannover01 at 2026-03-04 05:06:07, until 2026-03-04 13:06:07: too loud
clock        not to be trusted: nothing sets it
refused      222222222222, at gating (500), 2026-03-04 05:06:07
             sensor exited with code 3

sensor printed last, before it was left:
  | open /dev/ttyUSB0
  | no such device

MODULE  STATUS   PID  RESTARTS  STARTED              DOWN   SIGNED BY  IMAGE
sensor  backoff  -    2         2026-03-04 05:06:07  -      -          registry.example.com/sensor@sha256:aaaaaaaaaaaa
spare   running  12   0         2026-03-04 05:06:07  412ms  release    registry.example.com/sensor@sha256:aaaaaaaaaaaa

sensor: exited with code 3, starts again at 2026-03-04T05:07:00Z
  | panic: cold
`
	if b.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", b.String(), want)
	}
}

func TestHistoryIsATable(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.Local)
	one := schema.Revision{Commit: strings.Repeat("1", 40), Subject: "Greet"}
	two := schema.Revision{Commit: strings.Repeat("2", 40), Subject: strings.Repeat("very ", 20)}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	printHistory(w, []schema.Event{
		{At: at, Kind: schema.EventHealthy, Revision: one},
		{At: at, Kind: schema.EventRolledBack, Revision: two, Module: "sensor", Reason: "sensor exited with code 3\nand more", Output: "a\tb\n"},
		{At: at, Kind: schema.EventSuspend, Revision: one, By: "anna", Reason: "fair"},
	})
	w.Flush()
	want := `WHEN                 WHAT         REVISION                                          BY    REASON
2026-03-04 05:06:07  healthy      111111111111 Greet                                -     -
2026-03-04 05:06:07  rolled-back  222222222222 very very very very very very very…  -     sensor exited with code 3 …
2026-03-04 05:06:07  suspend      111111111111 Greet                                anna  fair

sensor printed last, before 222222222222 was left:
  | a    b
`
	if b.String() != want {
		t.Errorf("printed\n%s\nwant\n%s", b.String(), want)
	}
}
