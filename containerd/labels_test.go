package containerd

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/containers"

	"github.com/tidemark-edge/tidemark/containerd/account"
	"github.com/tidemark-edge/tidemark/schema"
)

func sampleContainer() (containers.Container, record) {
	rec := record{
		module: "sensor", hash: strings.Repeat("ab", 32), commit: "c0ffee", image: "r/x@sha256:1", chain: "sha256:2", network: "none",
		user: account.IDs{UID: 1, GID: 2}, stop: schema.Stop{Signal: "SIGINT", Timeout: schema.Duration(time.Minute)},
		restarts: 7, started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
	id := containerID(rec.module, rec.hash)
	return containers.Container{ID: id, Image: string(rec.image), SnapshotKey: id, Labels: rec.labels()}, rec
}

func TestLabelsRemember(t *testing.T) {
	c, want := sampleContainer()
	got, ours := readRecord(c)
	if !ours || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, ours, want)
	}
}

// Anybody can write labels; what does not fit together is not ours.
func TestLabelsThatDoNotFitAreForeign(t *testing.T) {
	for name, change := range map[string]func(*containers.Container){
		"another id":       func(c *containers.Container) { c.ID, c.SnapshotKey = "byhand", "byhand" },
		"another image":    func(c *containers.Container) { c.Image = "evil" },
		"another snapshot": func(c *containers.Container) { c.SnapshotKey = "evil" },
		"no labels":        func(c *containers.Container) { c.Labels = nil },
		"no module":        func(c *containers.Container) { delete(c.Labels, labelModule) },
		"short hash":       func(c *containers.Container) { c.Labels[labelHash] = "abab" },
		"wild module":      func(c *containers.Container) { c.Labels[labelModule] = "../x" },
		"wild user":        func(c *containers.Container) { c.Labels[labelUser] = "0" },
		"wild timeout":     func(c *containers.Container) { c.Labels[labelStopTimeout] = "-1s" },
		"wild restarts":    func(c *containers.Container) { c.Labels[labelRestarts] = "many" },
		"wild time":        func(c *containers.Container) { c.Labels[labelStarted] = "today" },
	} {
		c, _ := sampleContainer()
		change(&c)
		if rec, ours := readRecord(c); ours || !reflect.DeepEqual(rec, record{}) {
			t.Errorf("%s: %+v", name, rec)
		}
	}
}
