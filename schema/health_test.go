package schema

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// probes is one Health in which every field says something.
func probes() Health {
	times := Probe{Interval: Duration(5 * time.Second), Timeout: Duration(time.Second), Failures: 3}
	startup, liveness, readiness := times, times, times
	startup.Exec = &ExecProbe{Command: []string{"/app", "--check"}}
	liveness.HTTP = &HTTPProbe{Port: 8080, Path: "/live"}
	readiness.NATS = &NATSProbe{Method: "health"}
	return Health{Startup: &startup, Liveness: &liveness, Readiness: &readiness}
}

// Whether two say the same does not depend on where their probes lie.
func TestHealthEqualByValue(t *testing.T) {
	if a, b := probes(), probes(); !a.Equal(b) || a.Startup == b.Startup {
		t.Fatal("the same probes at other addresses are not equal")
	}
	if !(Health{}).Equal(Health{}) {
		t.Error("no probes are not equal to none")
	}
	data, err := json.Marshal(probes())
	if err != nil {
		t.Fatal(err)
	}
	var read Health
	if err := json.Unmarshal(data, &read); err != nil || !read.Equal(probes()) {
		t.Errorf("read back from %s: %+v, %v", data, read, err)
	}
}

// Each field counts.
func TestHealthEqualSeesEachField(t *testing.T) {
	for name, change := range map[string]func(*Health){
		"no startup":    func(h *Health) { h.Startup = nil },
		"no liveness":   func(h *Health) { h.Liveness = nil },
		"no readiness":  func(h *Health) { h.Readiness = nil },
		"command":       func(h *Health) { h.Startup.Exec.Command[1] = "--other" },
		"fewer words":   func(h *Health) { h.Startup.Exec.Command = h.Startup.Exec.Command[:1] },
		"port":          func(h *Health) { h.Liveness.HTTP.Port = 8081 },
		"path":          func(h *Health) { h.Liveness.HTTP.Path = "/" },
		"method":        func(h *Health) { h.Readiness.NATS.Method = "ready" },
		"another kind":  func(h *Health) { h.Readiness.NATS, h.Readiness.TCP = nil, &TCPProbe{Port: 1} },
		"one kind more": func(h *Health) { h.Readiness.TCP = &TCPProbe{Port: 1} },
		"interval":      func(h *Health) { h.Liveness.Interval++ },
		"timeout":       func(h *Health) { h.Liveness.Timeout++ },
		"failures":      func(h *Health) { h.Liveness.Failures++ },
	} {
		a, b := probes(), probes()
		change(&b)
		if a.Equal(b) || b.Equal(a) {
			t.Errorf("%s: equal", name)
		}
	}
}

// A field that Equal does not know would be a change that is not seen.
func TestHealthEqualKnowsAllFields(t *testing.T) {
	for typ, fields := range map[reflect.Type]int{
		reflect.TypeFor[Health]():    3,
		reflect.TypeFor[Probe]():     7,
		reflect.TypeFor[ExecProbe](): 1,
	} {
		if n := typ.NumField(); n != fields {
			t.Errorf("%v has %d fields; Equal was written for %d", typ, n, fields)
		}
	}
}
