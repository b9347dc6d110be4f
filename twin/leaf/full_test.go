package leaf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// A full disk refuses updates, says so, and changes nothing; when there is room
// again it goes on.
func TestFullDisk(t *testing.T) {
	disk := harness.SmallDisk(t, "1m")
	site := newSite(t)
	twins := filepath.Join(site.config.StateDir, "twins")
	if err := os.Symlink(disk, twins); err != nil {
		t.Fatal(err)
	}
	l := site.open()
	site.declare(l, declared("sensor"))
	conn := site.module(l, "sensor")
	text := strings.Repeat("x", 10<<10)
	var refused *twin.Error
	acknowledged := uint64(0)
	filler := harness.Fill(t, disk)
	for i := 0; refused == nil && i < 1000; i++ {
		a, err := report(t, conn, "sensor", fmt.Sprintf(`{"i":%d,"text":%q}`, i, text))
		if err == nil {
			acknowledged = a.Version
		} else if !errors.As(err, &refused) {
			t.Fatal(err)
		}
	}
	if refused == nil || refused.Code != twin.CodeNoSpace {
		t.Fatalf("on a full disk the error is %v", refused)
	}
	if v := get(t, conn, "sensor").Properties.Reported.Version; v != acknowledged {
		t.Errorf("the twin is at version %d, acknowledged was %d", v, acknowledged)
	}
	if err := l.Report(t.Context(), schema.Report{Phase: strings.Repeat("x", 10<<10)}); !errors.As(err, &refused) || refused.Code != twin.CodeNoSpace {
		t.Errorf("report of the device: %v", err)
	}
	if n := strings.Count(site.warned(), "write twins"); n != 1 {
		t.Errorf("a person is told %d times", n)
	}
	l.Close()
	l = site.open() // a full disk keeps no device from starting
	conn = site.module(l, "sensor")
	if v := get(t, conn, "sensor").Properties.Reported.Version; v != acknowledged {
		t.Errorf("after a restart the twin is at version %d, acknowledged was %d", v, acknowledged)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if a, err := report(t, conn, "sensor", `{"i":"room"}`); err != nil || a.Version != acknowledged+1 {
		t.Errorf("with room again: %+v, %v", a, err)
	}
	l.Close()
	l = site.open()
	if d := l.Documents()[1]; d.Properties.Reported.Values["i"] != "room" {
		t.Errorf("read back %+v", d.Properties.Reported)
	}
}
