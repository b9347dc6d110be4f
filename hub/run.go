package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// Run follows the fleet repository until ctx ends:
//
//	look for a new accepted commit, at the poll interval or when Look is called
//	→ which devices it defines, with which keys → admit exactly those
//	→ remember them on disk → say fleet.moved to every device
//
// What fails is warned about and tried again; what was admitted stays.
func (h *Hub) Run(ctx context.Context) error {
	for first := true; ; first = false {
		if err := h.follow(ctx, first); err != nil && ctx.Err() == nil {
			h.config.Warn(err)
		}
		poll := time.Duration(h.config.Repository.Poll)
		t := time.NewTimer(poll + rand.N(poll/10+1))
		select {
		case <-t.C:
		case <-h.look:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// Look has Run look at the fleet repository now, for whoever learns of a push.
func (h *Hub) Look() {
	select {
	case h.look <- struct{}{}:
	default: // it will look anyway
	}
}

// follow brings admission to the newest accepted commit, again where a step of
// that failed the last time: a revocation that is not on the disk would end with
// this hub. At the start it also evaluates a commit that is known, because this
// hub may read it differently from the one that wrote the file.
func (h *Hub) follow(ctx context.Context, first bool) error {
	revision, tree, err := h.config.Source.Fetch(ctx)
	if err != nil {
		var refused *schema.RefusedError
		if errors.As(err, &refused) {
			return fmt.Errorf("a commit is not accepted, its devices stay as they were: %w", err)
		}
		return fmt.Errorf("look at the fleet repository: %w", err)
	}
	if first {
		h.told = h.fleet.Revision.Commit
	} else if revision.Commit == h.followed {
		return nil
	}
	if err := h.admitTree(ctx, revision, tree); err != nil {
		return err
	}
	if revision.Commit != h.told {
		if err := h.announce(revision); err != nil {
			return err
		}
	}
	h.told, h.followed = revision.Commit, revision.Commit
	return nil
}

func (h *Hub) admitTree(ctx context.Context, revision schema.Revision, tree fs.FS) error {
	entries, err := h.config.Devices(ctx, tree)
	if err != nil {
		return fmt.Errorf("revision %s, admitted devices stay as they were: %w", revision.Short(), err)
	}
	next, wrong := h.fleet.admitting(revision, entries)
	for _, w := range wrong {
		h.config.Warn(fmt.Errorf("revision %s: %w", revision.Short(), w))
	}
	h.admission.admit(next.Devices)
	h.fleet = next
	err = next.write(filepath.Join(h.config.StateDir, fleetFile))
	if h.config.External != nil {
		err = errors.Join(err, h.writeAuthorization(next.Devices))
	}
	h.config.Moved(revision, maps.Clone(next.Devices))
	return err
}

// lookers is how many devices a second may look at the fleet repository because
// the hub said that it moved.
const lookers = 100

// announce tells every device that the fleet repository moved, and to take its
// time where there are many.
func (h *Hub) announce(revision schema.Revision) error {
	m := twin.Moved{Commit: revision.Commit, Spread: spread(len(h.fleet.Devices))}
	if err := h.nc.Publish(twin.FleetMoved, m.Encode()); err != nil {
		return fmt.Errorf("say %s: %w", twin.FleetMoved, err)
	}
	return h.nc.Flush()
}

// spread is how long a fleet takes to look, in whole seconds.
func spread(devices int) time.Duration {
	return min(time.Duration(devices/lookers)*time.Second, twin.MaxSpread)
}
