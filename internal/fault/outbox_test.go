package fault_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/twin"
)

// TestMessagesAreAccountedForWhateverADeviceMeets has a wrong clock, bounds that are
// reached, a full disk and a damaged block file, each with messages that wait.
func TestMessagesAreAccountedForWhateverADeviceMeets(t *testing.T) {
	t.Parallel()
	eachDevice(t, func(t *testing.T, options fault.Options) {
		options.Clock, options.Pad = true, 60<<10
		d := sending(t, options, `
			urgent: {from: "sender/urgent", order: "strict", maxBytes: "4Mi", overflow: "refuse"}
			bulk: {from: "sender/bulk", maxBytes: "4Mi"}
			local: {from: "sender/local", to: "sender/inbox"}`, 10, 1, 0)
		for _, meets := range []struct {
			what string
			does func(*testing.T, *fault.Device)
			lost []string // reasons for which messages are lost; none are without any
		}{
			{"a clock that is wrong by decades", wrongClock, nil},
			{"bounds that are reached", reachedBounds, []string{twin.LostBound}},
			{"a full disk", fullDisk, nil},
			{"a damaged block file", damagedBlock, []string{twin.LostDamaged, twin.LostWiped}},
		} {
			d.Account.Expected = append(d.Account.Expected, meets.lost...)
			before := accounted(t, d)
			meets.does(t, d)
			settled(t, d)
			counted(t, d, 10)
			after := accounted(t, d)
			if t.Logf("%s: %+v", meets.what, after); (after.Lost > before.Lost) != (meets.lost != nil) {
				t.Errorf("%s: %d messages were lost before, and %d after", meets.what, before.Lost, after.Lost)
			}
		}
	})
}

// wrongClock has messages wait while the clock jumps. None is too old.
func wrongClock(t *testing.T, d *fault.Device) {
	d.Link.Cut()
	counted(t, d, 10)
	d.Clock.Set(56 * 365 * 24 * time.Hour)
	counted(t, d, 10)
	d.Clock.SetTo(time.Unix(60, 0))
	counted(t, d, 10)
	d.Kill(fault.AgentPart)
	d.Revive()
	counted(t, d, 10)
	d.Link.Restore()
	counted(t, d, 10)
	d.Clock.Set(0)
}

// reachedBounds has more wait than the routes have room for: one refuses what is new,
// the other drops what is oldest.
func reachedBounds(t *testing.T, d *fault.Device) {
	d.Link.Cut()
	refused(t, d, 20)
	d.Link.Restore()
}

// fullDisk leaves no room for anything. What is refused then is nowhere.
func fullDisk(t *testing.T, d *fault.Device) {
	d.Disk.Fill(0)
	refused(t, d, 10)
	d.Kill(fault.AgentPart)
	d.Disk.Fill(1)
	d.Revive()
	time.Sleep(time.Second)
	d.Disk.Free()
}

// damagedBlock has a bit flip, while the agent is off, in the middle of what waits.
func damagedBlock(t *testing.T, d *fault.Device) {
	d.Link.Cut()
	counted(t, d, 60)
	d.Stop(fault.AgentPart)
	blocks, err := filepath.Glob(filepath.Join(d.StateDir, "jetstream/jetstream/*/streams/OUTBOX_bulk/msgs/*.blk"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("no block files: %v", err)
	}
	slices.Sort(blocks)
	block := blocks[len(blocks)-1]
	content, err := os.ReadFile(block)
	if err == nil {
		content[len(content)*3/4] ^= 1
		err = os.WriteFile(block, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	d.Damaged = append(d.Damaged, block)
	d.Revive()
	d.Link.Restore()
}

// refused waits until so many more messages have been refused.
func refused(t *testing.T, d *fault.Device, more int) {
	t.Helper()
	want := d.Account.Counts().Refused + more
	for end := time.Now().Add(deadline); d.Account.Counts().Refused < want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("of %d messages that were to be refused: %+v", want, d.Account.Counts())
		}
	}
}
