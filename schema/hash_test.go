package schema_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// TestHashesStayTheSame holds hashes of earlier releases. A container is known by
// the hash of its definition: where it changes, the next agent replaces every
// container of every device at its first commit. So a field that is new in Module
// is left out of its JSON when it is not set (omitempty, omitzero), and none is
// renamed or moved.
func TestHashesStayTheSame(t *testing.T) {
	small := schema.Module{Name: "m", Image: "example.com/m@sha256:0", Network: schema.NetworkNone}
	full := schema.Module{
		Name: "m", Image: "example.com/m@sha256:0", Args: []string{"-v", "<a>"}, Env: map[string]string{"B": "2", "A": "1"}, User: "1000:1000",
		Stop:   schema.Stop{Signal: "SIGINT", Timeout: schema.Duration(90 * time.Second)},
		Limits: schema.Limits{Memory: 64 << 20, CPU: 0.5, PIDs: 100},
		Mounts: map[string]schema.Mount{
			"/data": {Volume: "data"}, "/tmp": {Tmpfs: 1 << 20}, "/dev/x": {Host: "/dev/x", ReadOnly: true},
		},
		Network: schema.NetworkHost,
	}
	unshaped := full // what does not shape the container
	unshaped.Status, unshaped.Restart = schema.StatusStopped, schema.Restart{Policy: schema.RestartNever, Min: 1, Max: 2}
	unshaped.DependsOn = map[string]schema.Dependency{"n": {Condition: schema.ConditionHealthy}}
	unshaped.Twin = schema.TwinSpec{Desired: map[string]any{"a": 1}, Reported: "a?: int"}
	unshaped.Health = schema.Health{Liveness: &schema.Probe{TCP: &schema.TCPProbe{Port: 80}}}
	unshaped.Update = schema.Update{Strategy: schema.UpdateStartThenStop}
	for _, c := range []struct {
		name   string
		module schema.Module
		want   string
	}{
		{"small", small, "daef37eaf892e839f1144d8cff9dfee7a830a56cf7f5677e9c831c38a86e2621"},
		{"full", full, "ad09fd603481a1fc48338adae12ae04140272ef533ba0c5e648ff4e3e7231b0f"},
		{"unshaped", unshaped, "ad09fd603481a1fc48338adae12ae04140272ef533ba0c5e648ff4e3e7231b0f"},
	} {
		if got := c.module.Hash(); got != c.want {
			t.Errorf("%s: %s, was %s", c.name, got, c.want)
		}
	}
}

// TestWhatIsNotSaidIsNotWritten: the same module in the JSON of earlier releases,
// byte for byte, so that agents before and after an update read each other's state.
func TestWhatIsNotSaidIsNotWritten(t *testing.T) {
	m := schema.Module{
		Name: "m", Image: "example.com/m@sha256:0", Status: schema.StatusRunning, Network: schema.NetworkNone,
		Restart: schema.Restart{Policy: schema.RestartAlways, Min: schema.Duration(10 * time.Second), Max: schema.Duration(5 * time.Minute)},
		Stop:    schema.Stop{Signal: "SIGTERM", Timeout: schema.Duration(10 * time.Second)},
		Limits:  schema.Limits{PIDs: 512},
	}
	want := `{"name":"m","image":"example.com/m@sha256:0","status":"running",` +
		`"restart":{"policy":"always","min":"10s","max":"5m0s"},"stop":{"signal":"SIGTERM","timeout":"10s"},` +
		`"limits":{"pids":512},"network":"none"}`
	got, err := json.Marshal(m)
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}
