package leaf

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
)

func TestProbeAsksTheModule(t *testing.T) {
	s := newSite(t)
	l := s.open()
	s.declare(l, declared("sensor", "other"))
	conn := s.module(l, "sensor")
	for method, answer := range map[string]string{"health": `{"temperature":21}`, "text": "fine", "sick": `{"error":{"code":503,"message":"no device"}}`} {
		if _, err := conn.Subscribe("devices.d1.modules.sensor.rpc."+method, func(m *nats.Msg) { m.Respond([]byte(answer)) }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Subscribe("devices.d1.modules.sensor.rpc.mute", func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ module, method, want string }{
		{"sensor", "health", ""},
		{"sensor", "text", ""},
		{"sensor", "sick", "rpc.sick: no device (503)"},
		{"sensor", "none", "rpc.none: nobody answers"},
		{"other", "health", "rpc.health: nobody answers"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := l.Probe(ctx, tc.module, tc.method)
		cancel()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || err.Error() != tc.want) {
			t.Errorf("%s %s: %v, want %q", tc.module, tc.method, err, tc.want)
		}
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("no answer within 50ms"))
	defer cancel()
	if err := l.Probe(ctx, "sensor", "mute"); err == nil || err.Error() != "rpc.mute: no answer within 50ms" {
		t.Errorf("mute: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := l.Probe(ended, "sensor", "mute"); !errors.Is(err, schema.ErrNotAsked) || strings.Contains(err.Error(), "nobody") {
		t.Errorf("not asked: %v", err)
	}
}

// Who calls a method of the device matters to what is recorded of it.
func TestCallsFromTheHubAreToldApart(t *testing.T) {
	s := newSite(t)
	l := s.open()
	heard := make(chan bool, 1)
	if err := l.Handle("who", func(ctx context.Context, _ []byte) ([]byte, error) { heard <- FromHub(ctx); return []byte("{}"), nil }); err != nil {
		t.Fatal(err)
	}
	conn, err := l.Connect("person")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Request("devices.d1.rpc.who", nil, time.Minute); err != nil || <-heard {
		t.Errorf("a call on the device is taken for the hub's, or %v", err)
	}
}
