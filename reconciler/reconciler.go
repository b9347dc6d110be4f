// Package reconciler holds a device at the state that its fleet repository
// declares. Two loops share one value, the target: what shall run.
//
// Supervision keeps the target running. It needs no network, and it never waits
// for a deployment or for an action: a module that crashes is restarted while an
// image downloads and while another module takes its time to stop. One pass:
//
//  1. Take over the revision that deployment has staged: it is the target now,
//     on trial. Without a target touch nothing: a device that was never told
//     what to run is not a device that shall run nothing.
//  2. Observe all containers, and add what the probes of those that run say.
//  3. Judge a target on trial. It is declared, and all modules that it changes
//     were healthy for its gate: it becomes last-good. One of them failed, or was
//     not healthy by its deadline: last-good, whole and from the disk, is the
//     target again, and the commit is remembered as bad. A trial begins again
//     with the agent, and that is counted before anything is done; when it was
//     five times with the machine, or ten times in all, it has failed. The first
//     revision of a device has none before it: from then on the agent waits a
//     minute for its successor before it goes on with it.
//  4. Declare the target's twins and identities, for modules to find.
//  5. Plan: compare target and observed (Diff); put off what lacks a verified
//     image on the disk, waits for another action, or failed a moment ago.
//  6. Act: begin what the plan says, at most one action per module, and a few at
//     a time. An action that ends calls for the next pass.
//
// Beside the passes each run of a module that has probes is asked by them, at
// their own pace; that its health is another one calls for the next pass. A new
// target starts every back-off anew.
//
// Deployment stages the next target. It goes on fetching beside the staging, so
// that a newer commit pre-empts an older one at any step:
//
//  1. Aim at the newest acceptable commit, unless it is the target, known as bad,
//     or an order is in the way; or at the earlier revision that a person wants
//     back. Another aim than before: drop the candidate; this is the candidate.
//  2. Render it for this device, unless its definition is kept, and ask whether
//     the device's owner permits it.
//  3. Verify every image.
//  4. Ask whether they fit on the disk, before the first byte. If not, delete what
//     nothing needs.
//  5. Pull every image.
//  6. Hand it to supervision, which replaces nothing before all this is done.
//
// An agent counts, on the disk, that it begins with a candidate. One that ended
// five agents in one boot waits for a minute after the start: a newer commit, which
// mends it, is fetched meanwhile.
//
// A candidate that is refused for what it says stays refused until another
// commit comes, a person has it tried again, or the agent starts again.
// Everything else, a missing signature or a full disk too, is tried again with a
// capped back-off; nothing is given up.
//
// Beside them, fetching looks at the fleet repository, keeping has the images of
// target and last-good and those that they pin on the disk, and no others but the
// candidate's, and reporting says what changed.
//
// People order: Suspend and Resume, Rollback, with or without a hold, and Retry.
// An order is a part of the state, and in the history, before it is answered.
//
// What supervision decided is on the disk before it is acted on (state.json).
// After a start with no network the target and the images' signatures come from
// there, and containers that run as declared are left alone. What happened, and
// the definitions of earlier good revisions, are kept beside it (package
// history); a state that is found broken is rebuilt from them.
//
// Diff and Judge are pure functions of what is desired, what is observed and the
// time. An action is data, and the plan, the log and the report use its words.
package reconciler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidemark-edge/tidemark/reconciler/history"
	"github.com/tidemark-edge/tidemark/schema"
)

// Defaults.
const (
	DefaultPoll = time.Minute      // between two looks at the fleet repository
	DefaultTick = 10 * time.Second // between two passes when nobody kicks
)

// Reconciler is the heart of an agent. Its exported fields are set before Run
// and not changed after; all are required but those with a default.
type Reconciler struct {
	Device   string           // the device's name
	StateDir string           // survives reboots; holds state.json, made when missing
	Boot     string           // tells one boot of the machine from another; empty where that is unknown
	Agent    schema.AgentInfo // shown in the report
	Poll     time.Duration    // between two looks at the fleet repository, with jitter; default DefaultPoll
	Log      *slog.Logger     // one line per action and per change; default slog.Default()

	Source   Source
	Renderer Renderer
	Verifier Verifier
	Runtime  Runtime
	Store    Store
	Reporter Reporter
	Prober   Prober // asks the modules that have probes
	Output   Output // what modules printed, for refusals and the report

	// Permits says what the device's owner does not allow, whatever was reviewed;
	// nil permits everything. It refuses a revision before what runs is touched.
	Permits func(schema.Desired) error

	look    kick        // supervision: observe again
	urgent  kick        // supervision: and do not wait because it has looked so often
	moved   kick        // fetching: look now
	aimed   kick        // deployment: see what to stage
	restock kick        // keeping: an image is missing, or no longer needed
	changed kick        // reporting: something that the report shows has changed
	eager   atomic.Bool // deployment: try again at once what waits to be
	news    news

	starts   turns // of those who start a module
	restarts turns // of those who restart one: none waits for a deployment
	ends     turns // of those who remove or stop one

	events    *history.Log       // what happened to revisions
	early     []schema.Event     // to be added once there is one; guarded by deciding
	revisions *history.Revisions // definitions to return to

	work    sync.WaitGroup // everything that Run started
	pruning sync.RWMutex   // held for reading while verifying and pulling, for writing while pruning

	deciding sync.Mutex // held from reading the state until its successor is on the disk; before mu

	mu       sync.Mutex          // guards what follows
	state    state               // changed under deciding too
	unsaved  bool                // a decision of supervision is not on the disk yet
	previous schema.Desired      // the target before, to explain what is replaced
	newest   commit              // acceptable; the zero commit until there was one
	attempt  int                 // how often a person had something tried again
	counted  string              // the commit that this agent was last counted to stage
	setback  string              // the newest commit, when it was refused since it came
	next     *schema.Desired     // staged, for supervision to take over
	staging  []schema.Image      // of the candidate
	unclear  time.Time           // until then it may be that the candidate needs others, too
	shelf    shelf               // what is known of images
	sights   sights              // when containers were seen to start and exit
	busy     map[string]deed     // the action under way, by Action.subject
	failures failures            // of actions
	mends    mends               // of drift, of late
	gaps     gaps                // in which modules are down because they are replaced
	since    time.Time           // when the target was taken over, or the agent began with it
	calm     time.Time           // nothing is done before; zero when it may be
	before   map[string]int      // restarts of each container when that was; nil until they were looked at
	checkups map[string]*checkup // by container
	declared bool                // the Reporter has the target
	settled  bool                // the target's containers are made and nothing else is there
	pruned   bool                // since the target became last-good
	leave    func()              // ends the work on images of an older target

	began time.Time // when the agent started; not changed after

	catalogs catalogs // of supervision alone
	tails    tails

	// What only the report shows.
	observed schema.Observed  // with the runtime's own times
	plan     Plan             // of the latest pass
	verdict  Verdict          // of the latest pass
	progress string           // phase of the deployment under way; empty when there is none
	refused  *schema.Refusal  // the newest acceptable commit, when it is not what runs
	rejected *schema.Refusal  // the newest commit, when it is not acceptable
	trouble  map[string]error // what keeps the device from its work now, by topic
	phase    string           // as last logged
}

// Run holds the device at its declared state until ctx ends. Modules go on
// running then. It returns an error only when it cannot begin.
func (r *Reconciler) Run(ctx context.Context) error {
	if err := schema.CheckName(r.Device); err != nil {
		return fmt.Errorf("run reconciler: device: %w", err)
	}
	r.load()
	r.work.Go(func() { r.supervision(ctx) })
	r.work.Go(func() { r.fetching(ctx) })
	r.work.Go(func() { r.deployment(ctx) })
	r.work.Go(func() { r.keeping(ctx) })
	r.work.Go(func() { r.reporting(ctx) })
	r.work.Wait()
	return nil
}

// Kick asks for a pass of supervision now: a container changed. Kicks collapse;
// any goroutine may call it at any time.
func (r *Reconciler) Kick() { r.lookNow() }

// Moved asks deployment to fetch now, and to try again at once what it waits to
// try again: the fleet repository moved, or the link is back. Kicks collapse;
// any goroutine may call it at any time.
func (r *Reconciler) Moved() {
	r.moved.now()
	r.restock.now()
	r.hurry()
}

// hurry has deployment try again at once what it waits to try again.
func (r *Reconciler) hurry() {
	r.eager.Store(true)
	r.aimed.now()
}

// Preview is what would be done now if desired were the target. It touches
// nothing.
func (r *Reconciler) Preview(ctx context.Context, desired schema.Desired) (Plan, error) {
	observed, err := r.Runtime.Observe(ctx)
	if err != nil {
		return nil, fmt.Errorf("preview: observe containers: %w", err)
	}
	r.mu.Lock()
	known := []schema.Desired{r.state.Target, r.state.LastGood}
	observed = r.state.Finished.recall(desired, observed)
	r.overlay(observed)
	r.mu.Unlock()
	return Diff(desired, observed, time.Now(), known...).Explain(desired, observed, known...), nil
}

// load brings the reconciler to where it was before the agent ended.
func (r *Reconciler) load() {
	if r.Log == nil {
		r.Log = slog.Default()
	}
	if r.Poll <= 0 {
		r.Poll = DefaultPoll
	}
	state, err := loadState(r.StateDir)
	events, eventsErr := history.Open(r.StateDir)
	revisions, revisionsErr := history.OpenRevisions(r.StateDir)
	if !state.accepted() {
		state, err = r.rebuild(state, err, events, revisions)
	}
	r.deciding.Lock()
	r.mu.Lock()
	r.state, r.refused, r.began = state, state.Refused, time.Now()
	r.events, r.revisions = events, revisions
	r.shelf, r.sights, r.busy, r.failures = shelf{}, sights{}, map[string]deed{}, failures{}
	r.starts, r.restarts = newTurns(startsAtOnce, startTurn), newTurns(startsAtOnce, startTurn)
	r.ends = newTurns(endsAtOnce, endTurn)
	r.mends, r.gaps, r.checkups, r.since = mends{}, gaps{}, map[string]*checkup{}, time.Now()
	r.trouble, r.leave = map[string]error{}, func() {}
	r.settled = !state.Trial // until the first pass knows
	r.unclear = r.began.Add(forever)
	if !state.accepted() {
		r.progress = schema.PhaseFetching
	}
	r.mu.Unlock()
	r.deciding.Unlock()
	r.note(troubleState, err)
	r.note(troubleHistory, errors.Join(eventsErr, revisionsErr))
	if eventsErr == nil && revisionsErr == nil {
		r.preserve() // also what became good just before the agent ended
		r.retell()
	}
	r.noteEarly()
	r.countStart()
}
