package hub

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// TestRevocationThatIsNotWrittenIsWrittenLater has a disk that does not take the
// file of a revocation: it holds all the same, and is on the disk, and announced,
// when that takes files again, with no other commit.
func TestRevocationThatIsNotWrittenIsWrittenLater(t *testing.T) {
	_, public := newKey(t)
	c := newCloud(t)
	c.follow(schema.Entry{Name: "a", Identity: public})
	told := make(chan *nats.Msg, 10)
	nc := c.operator()
	if _, err := nc.ChanSubscribe(twin.FleetMoved, told); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(c.conf.StateDir, fleetFile)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.repo.commits()
	c.hub.Look()
	until(t, "a is revoked", func() bool { return len(c.hub.admission.admitted()) == 0 })
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	until(t, "that is on the disk", func() bool {
		c.hub.Look()
		f, broken, err := readFleet(path)
		return err == nil && broken == nil && f.Revision.Commit == "3" && len(f.Devices) == 0
	})
	<-told
}
