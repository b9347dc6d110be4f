package containerd

import (
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/core/containers"

	"github.com/tidemark-edge/tidemark/containerd/account"
	"github.com/tidemark-edge/tidemark/schema"
)

// Labels of our containers. containerd keeps them in its database; they are
// all that an agent remembers about a container.
const (
	labelModule      = "tidemark.io/module"
	labelHash        = "tidemark.io/hash"         // schema.Module.Hash of the definition
	labelCommit      = "tidemark.io/commit"       // the revision that made it
	labelImage       = "tidemark.io/image"        // repository@digest
	labelChain       = "tidemark.io/chain"        // the snapshot that its own is made from
	labelNetwork     = "tidemark.io/network"      // schema.NetworkNone or NetworkHost
	labelUser        = "tidemark.io/user"         // uid:gid of its first process
	labelStopSignal  = "tidemark.io/stop-signal"  // "SIGTERM"
	labelStopTimeout = "tidemark.io/stop-timeout" // "10s"
	labelRestarts    = "tidemark.io/restarts"     // as given to Restart
	labelStarted     = "tidemark.io/started"      // RFC 3339, of the present or last run
	labelEnded       = "tidemark.io/ended"        // why the agent ended the present or last run; absent when it did not
)

// record is what the labels of one container say.
type record struct {
	module   string
	hash     string
	commit   string
	image    schema.Image
	chain    string
	network  string
	user     account.IDs
	stop     schema.Stop
	restarts int
	started  time.Time
	ended    string // as given to Stop
}

// labels is the inverse of readRecord. containerd keeps no label that is empty.
func (c record) labels() map[string]string {
	return map[string]string{
		labelModule:      c.module,
		labelHash:        c.hash,
		labelCommit:      c.commit,
		labelImage:       string(c.image),
		labelChain:       c.chain,
		labelNetwork:     c.network,
		labelUser:        fmt.Sprintf("%d:%d", c.user.UID, c.user.GID),
		labelStopSignal:  c.stop.Signal,
		labelStopTimeout: time.Duration(c.stop.Timeout).String(),
		labelRestarts:    strconv.Itoa(c.restarts),
		labelStarted:     c.started.UTC().Format(time.RFC3339Nano),
		labelEnded:       c.ended,
	}
}

// readRecord reads a container's labels. ours is false for a container that
// was not made by a Runtime, or whose labels do not agree with what it is:
// anybody can write labels, so they must fit the id, the image and the
// snapshot.
func readRecord(c containers.Container) (rec record, ours bool) {
	l := c.Labels
	rec = record{
		module:  l[labelModule],
		hash:    l[labelHash],
		commit:  l[labelCommit],
		image:   schema.Image(l[labelImage]),
		chain:   l[labelChain],
		network: l[labelNetwork],
		stop:    schema.Stop{Signal: l[labelStopSignal]},
		ended:   l[labelEnded],
	}
	if schema.CheckName(rec.module) != nil || len(rec.hash) != 64 || c.ID != containerID(rec.module, rec.hash) {
		return record{}, false
	}
	if c.Image != string(rec.image) || c.SnapshotKey != c.ID {
		return record{}, false
	}
	var err error
	if rec.user, err = account.ParsePair(l[labelUser]); err != nil {
		return record{}, false
	}
	timeout, err := time.ParseDuration(l[labelStopTimeout])
	if err != nil || timeout < 0 {
		return record{}, false
	}
	rec.stop.Timeout = schema.Duration(timeout)
	if rec.restarts, err = strconv.Atoi(l[labelRestarts]); err != nil {
		return record{}, false
	}
	if rec.started, err = time.Parse(time.RFC3339Nano, l[labelStarted]); err != nil {
		return record{}, false
	}
	return rec, true
}
