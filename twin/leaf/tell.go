package leaf

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tidemark-edge/tidemark/internal/failpoint"
	"github.com/tidemark-edge/tidemark/twin"
)

// tell brings what is on disk of desired to the modules: as a file, as a
// message, and then with the signal that they asked for. What was told is told
// in the order in which it was committed: the caller holds l.declaring. A file
// that cannot be written is tried again; see courier.
func (l *Leaf) tell(changed []twin.Document) error {
	failpoint.Reach("twins.committed")
	for _, d := range changed {
		l.courier.write(d.Module)
	}
	failpoint.Reach("twins.filed")
	err := l.twins.publish(changed)
	failpoint.Reach("twins.published")
	for _, d := range changed {
		l.courier.call(d.Module)
	}
	return err
}

// publish tells modules that desired changed.
func (t *twins) publish(changed []twin.Document) error {
	var failed []error
	for _, d := range changed {
		body, err := json.Marshal(d.Properties.Desired)
		if err == nil {
			err = t.conn.Publish(twin.Prefix(t.device, d.Module)+".twin.desired", body)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("publish desired: %w", err))
		}
	}
	return errors.Join(append(failed, t.conn.Flush())...)
}
