package reconciler

import (
	"context"
	"io/fs"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/signing"
)

// Source is the fleet repository.
type Source interface {
	// Fetch returns the newest acceptable commit and its tree. An error leaves
	// what was accepted before as it is; a *schema.RefusedError names a commit that
	// was looked at and not accepted. The tree stays readable while later
	// commits are fetched; what a damaged disk lost of it is fetched anew.
	Fetch(ctx context.Context) (schema.Revision, fs.FS, error)
	// Accepted returns what Fetch returned last without an error, also before the
	// agent was started, and asks nobody. An error says that there is no such commit
	// on the disk.
	Accepted() (schema.Revision, fs.FS, error)
}

// Renderer turns a commit's tree into what one device shall run. The tree is
// of untrusted size: an implementation bounds memory and time. Its error refuses
// the commit, unless it wraps a syscall.Errno: then the device is at fault, not
// the definition. A Source's tree that cannot be read says so with one, which an
// implementation passes on. The Source is asked to Fetch then, and the Renderer
// again.
type Renderer interface {
	Render(ctx context.Context, tree fs.FS, device string) (schema.Desired, error)
}

// Verifier decides whether an image may run here. It asks the registry only
// for what is not on disk.
type Verifier interface {
	Verify(ctx context.Context, image schema.Image) (signing.Verified, error)
}

// Runtime runs modules. Every method is idempotent.
type Runtime interface {
	// Observe lists every container under our namespace, foreign ones included.
	Observe(ctx context.Context) (schema.Observed, error)
	// Start makes the container of module and runs it. It refuses a proof that
	// is not for module's image.
	Start(ctx context.Context, module schema.Module, commit string, image signing.Verified) error
	// Restart runs an exited container again and counts it; restarts is the
	// count to record, which a later Observe returns. One that somebody paused
	// goes on.
	Restart(ctx context.Context, id string, restarts int) error
	// Stop ends the container's process as its Stop says, and keeps the container:
	// a later Observe shows its exit, with reason as Ended, until it is restarted.
	Stop(ctx context.Context, id, reason string) error
	// Remove ends the container as its Stop says, and deletes it.
	Remove(ctx context.Context, id string) error
}

// Store keeps images on the disk: those that its Runtime starts containers from.
type Store interface {
	// Room reports whether images, as far as they are not on the disk yet, fit
	// there: it asks for their sizes, downloads nothing else, and refuses with a
	// *schema.NoRoomError, which shows the arithmetic.
	Room(ctx context.Context, images []signing.Verified) error
	// Pull brings a verified image to the disk, unpacked, whole after a power cut.
	// There is no deadline but ctx's; what came before an interruption is kept.
	Pull(ctx context.Context, image signing.Verified) error
	// Prune deletes from the disk every image but those of keep and those that
	// containers run from. It never runs beside a Pull.
	Prune(ctx context.Context, keep []schema.Image) error
}

// Prober asks a running module once whether it works. nil is yes. It heeds
// probe.Timeout itself: ctx lasts longer, for what asking takes apart from the
// answer. An error that wraps schema.ErrNotAsked says nothing about the module.
type Prober interface {
	Probe(ctx context.Context, container schema.Container, probe schema.Probe) error
}

// Output is what modules print.
type Output interface {
	// Tail returns the last lines of what a module printed in its present or last
	// run: at most that many lines and 4 KB, valid UTF-8. Empty when there is
	// nothing, or it cannot be read.
	Tail(module string, lines int) string
}

// Reporter is the device's twin, and the twins of its modules.
type Reporter interface {
	// Declare publishes properties.desired of the device and its modules, and
	// admits exactly these modules to the leaf.
	Declare(ctx context.Context, desired schema.Desired) error
	// Report replaces properties.reported of the device.
	Report(ctx context.Context, report schema.Report) error
}
