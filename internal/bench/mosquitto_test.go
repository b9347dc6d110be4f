//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

// mosquittoInFlight is how many messages the bridge has unacknowledged: with
// mosquitto's own 20 it is slower.
const mosquittoInFlight = 1000

// measureMosquitto queues the same messages in mosquitto, of which the bridge finds
// nobody, then starts the second mosquitto and takes the time in which all arrive. It
// acknowledges what is in memory: with persistence, it writes all of that to the disk
// each autosave_interval, and when it ends.
func measureMosquitto(t *testing.T, f *table) {
	n := *messages
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		t.Fatal("mosquitto, of Debian's package mosquitto, is not there: ", err)
	}
	edge, cloud := harness.FreeAddress(t), harness.FreeAddress(t)
	cloudProcess := startMosquitto(t, program, "cloud", cloud, "")
	keep, err := dialMQTT(cloud, "keep", true)
	if err == nil {
		err = keep.subscribe("#", 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	keep.close() // from now on the broker keeps what comes
	stopMosquitto(t, cloudProcess)

	edgeProcess := startMosquitto(t, program, "edge", edge, fmt.Sprintf(
		"connection cloud\naddress %s\ntopic # out 1\ncleansession false\nrestart_timeout 1\nnotifications false\n", cloud))
	sender, err := dialMQTT(edge, "module", false)
	if err != nil {
		t.Fatal(err)
	}
	defer sender.close()
	began := time.Now()
	for _, part := range []struct {
		topic string
		n     int
	}{{"first", 1}, {"reading", n - 2}, {"last", 1}} {
		if err := sender.publish(part.topic, part.n, ingestInFlight); err != nil {
			t.Fatal(err)
		}
	}
	took := time.Since(began)
	memory := memoryOf(t, edgeProcess.PID())
	f.add("mosquitto_in"+numbered(n)+"_msgs_per_s", float64(n)/took.Seconds(), "msg/s", "1 KB, QoS 1, one client, %d unacknowledged, the bridge's other end away: acknowledged from memory, not from disk", ingestInFlight)
	f.add("mosquitto_queued_"+amount(n)+"_rss_mib", memory["VmRSS"], "MiB", "mosquitto with %d messages of 1 KB queued", n)

	startMosquitto(t, program, "cloud", cloud, "")
	watch, err := dialMQTT(cloud, "watch", false)
	for _, topic := range []string{"first", "last"} {
		if err == nil {
			err = watch.subscribe(topic, 0)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer watch.close()
	var at [2]time.Time
	for i, want := range []string{"first", "last"} {
		topic, err := watch.next(10 * time.Minute)
		if err != nil || topic != want {
			t.Fatalf("wait for the %s message: %s, %v", want, topic, err)
		}
		at[i] = time.Now()
	}
	f.add("mosquitto_drain"+numbered(n)+"_msgs_per_s", float64(n)/at[1].Sub(at[0]).Seconds(), "msg/s",
		"%d messages of 1 KB, first to last, to a second mosquitto that keeps them for a session; Debian's %s, bridge with QoS 1, cleansession false, max_queued_messages 0, max_inflight_messages %d, persistence true, autosave_interval 1800 (its default)",
		n, version(program), mosquittoInFlight)
}

// numbered is what is added to the name of a figure of another number of messages
// than a million.
func numbered(n int) string {
	if n == 1_000_000 {
		return ""
	}
	return "_" + amount(n)
}

// startMosquitto runs one, and returns once it can be connected to.
func startMosquitto(t *testing.T, program, name, address, bridge string) *harness.Process {
	t.Helper()
	dir := filepath.Join(os.TempDir(), "tidemark-bench-"+name+"-"+strings.ReplaceAll(address, ":", "-"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	host, port, _ := strings.Cut(address, ":")
	config := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, `listener %s %s
user root
allow_anonymous true
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages %d
persistence true
persistence_location %s/
autosave_interval 1800
log_type error
log_type warning
%s`, port, host, mosquittoInFlight, dir, bridge), 0o600); err != nil {
		t.Fatal(err)
	}
	p := harness.Start(t, dir, exec.Command(program, "-c", config))
	t.Cleanup(func() { p.Stop(syscall.SIGKILL) })
	listens(t, address)
	return p
}

// stopMosquitto has it write what it keeps.
func stopMosquitto(t *testing.T, p *harness.Process) {
	t.Helper()
	p.Stop(syscall.SIGTERM)
}

// version is what mosquitto says of itself.
func version(program string) string {
	out, _ := exec.Command(program, "-h").Output() // its status says nothing
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}
