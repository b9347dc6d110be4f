//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

// stock is a nats-server as it is, for comparison: with JetStream, which syncs each
// message before it acknowledges it.
type stock struct {
	t       *testing.T
	program string
	dir     string
	address string
	leafs   string // where it accepts leaf connections
	process *harness.Process
}

// newNATS prepares a server; it is a leaf of the one at hub, unless that is empty.
func newNATS(t *testing.T, name, hub string) *stock {
	s := &stock{t: t, program: harness.Tool(t, "nats-server"), dir: t.TempDir(), address: harness.FreeAddress(t), leafs: harness.FreeAddress(t)}
	leafs := fmt.Sprintf("listen: %q", s.leafs)
	if hub != "" {
		leafs = fmt.Sprintf("remotes: [{url: \"nats-leaf://%s\"}]", hub)
	}
	config := fmt.Sprintf("server_name: %q\nlisten: %q\njetstream: {store_dir: %q, domain: %q, sync_interval: always, max_file: 4G}\nleafnodes: {%s}\n",
		name, s.address, filepath.Join(s.dir, "data"), name, leafs)
	if err := os.WriteFile(s.config(), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stock) config() string { return filepath.Join(s.dir, "nats.conf") }

func (s *stock) start() {
	s.process = harness.Start(s.t, s.dir, exec.Command(s.program, "-c", s.config()))
	s.t.Cleanup(s.kill)
}

func (s *stock) kill() { s.process.Stop(syscall.SIGKILL) }

func (s *stock) version() string {
	out, _ := exec.Command(s.program, "--version").Output()
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "nats-server: v")
}

func (s *stock) dial() *nats.Conn {
	var conn *nats.Conn
	harness.Eventually(s.t, func() (err error) {
		conn, err = nats.Connect(s.address, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
		return err
	})
	s.t.Cleanup(conn.Close)
	return conn
}

func addStream(t *testing.T, conn *nats.Conn, name, subject string, sources ...*jetstream.StreamSource) jetstream.Stream {
	t.Helper()
	config := jetstream.StreamConfig{Name: name, Storage: jetstream.FileStorage, Sources: sources}
	if subject != "" {
		config.Subjects = []string{subject}
	}
	var made jetstream.Stream
	harness.Eventually(t, func() error {
		js, err := jetstream.New(conn)
		if err == nil {
			made, err = js.CreateOrUpdateStream(context.Background(), config)
		}
		return err
	})
	return made
}

// readStored reads JetStream's acknowledgement.
func readStored(m *nats.Msg) error {
	var ack struct {
		Seq   uint64              `json:"seq"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return err
	}
	if ack.Error != nil {
		return ack.Error
	}
	if ack.Seq == 0 {
		return errors.New("it was not stored")
	}
	return nil
}

const sourcingRounds = 2

// measureSourcing takes how long JetStream's own way over a leaf needs after a
// restart of the hub: a stream at the hub that sources the device's.
func measureSourcing(t *testing.T, f *table) {
	hub := newNATS(t, "cloud", "")
	hub.start()
	device := newNATS(t, "device", hub.leafs)
	device.start()
	local := device.dial()
	addStream(t, local, "OUT", "out.>")
	conn := hub.dial()
	source := &jetstream.StreamSource{Name: "OUT", External: &jetstream.ExternalStream{APIPrefix: "$JS.device.API"}}
	stored := addStream(t, conn, "ALL", "", source)
	js, err := jetstream.New(local)
	if err != nil {
		t.Fatal(err)
	}
	s := newStream(t, func(ctx context.Context, body []byte) error {
		_, err := js.Publish(ctx, "out.reading", body)
		return err
	})
	defer s.end(t)
	storedSince(t, stored, "out.reading", time.Now(), s.mark())
	var took []float64
	for range sourcingRounds {
		hub.kill()
		time.Sleep(2 * time.Second)
		hub.start()
		back := listens(t, hub.leafs)
		stored = addStream(t, hub.dial(), "ALL", "", source)
		took = append(took, ms(storedSince(t, stored, "out.reading", back, s.mark())))
		time.Sleep(2 * time.Second)
	}
	f.add("sourcing_resume_after_hub_restart_ms", percentile(took, 100), "ms",
		"the same with stock nats-server %s on both sides: a stream at the hub that sources the device's; worst of %d, best %s", hub.version(), sourcingRounds, digits(percentile(took, 0)))
}
