package fault_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/fault"
	"github.com/tidemark-edge/tidemark/twin"
)

// sending is a device with a hub, whose modules send.
func sending(t *testing.T, options fault.Options, routes string, rate, series, last int) *fault.Device {
	t.Helper()
	options.Hub = true
	d := fault.NewDevice(t, options)
	if routes != "" {
		d.Routes = routes
	}
	d.Boot()
	d.Deploy(map[string]string{"sender": d.Sender(rate, series, last)})
	settled(t, d)
	counted(t, d, 20)
	return d
}

// counted waits until so many more messages have been taken.
func counted(t *testing.T, d *fault.Device, more int) {
	t.Helper()
	want := d.Account.Counts().Took + more
	for end := time.Now().Add(deadline); d.Account.Counts().Took < want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("of %d messages that were to be taken: %+v", want, d.Account.Counts())
		}
	}
}

// accounted checks that each message that was taken is where it has to be, and
// returns the counts.
func accounted(t *testing.T, d *fault.Device) fault.Counts {
	t.Helper()
	for _, v := range d.Account.Settle(deadline) {
		t.Errorf("messages: %s", v)
	}
	if t.Failed() {
		t.FailNow()
	}
	return d.Account.Counts()
}

// await waits for a failpoint to strike.
func await(t *testing.T, struck <-chan struct{}, name string) {
	t.Helper()
	select {
	case <-struck:
	case <-time.After(deadline):
		t.Fatalf("%s was never reached", name)
	}
}

// outage has the link down until more than a batch waits, for longer than what waits
// is sent before what is new.
func outage(t *testing.T, d *fault.Device, messages int) {
	t.Helper()
	began := time.Now()
	d.Link.Cut()
	counted(t, d, messages)
	time.Sleep(time.Until(began.Add(13 * time.Second)))
}

// TestMessagesSurvivePowerCuts cuts the power at each place of the outbox where it
// hurts. What a module was told is on the disk reaches the hub, once.
func TestMessagesSurvivePowerCuts(t *testing.T) {
	t.Parallel()
	world := fault.NewWorld(t)
	for _, c := range []struct {
		line, fs string
		at       []string
	}{
		{"2", "ext4", []string{"outbox.stored", "uplink.confirmed", "outbox.delivered"}},
		{"1.6", "xfs", []string{"outbox.delivered", "outbox.stored", "uplink.confirmed"}},
	} {
		t.Run("containerd-"+c.line+"/"+c.fs, func(t *testing.T) {
			t.Parallel()
			d := sending(t, fault.Options{World: world, Containerd: c.line, FS: c.fs}, "", 20, 2, 0)
			for _, at := range c.at {
				await(t, d.Controller.At(at, 3, d.PowerCut), at)
				d.Revive()
				settled(t, d)
				counted(t, d, 20)
				t.Logf("%s: %+v", at, accounted(t, d))
			}
		})
	}
}

// TestABacklogSurvivesAPowerCutWhileItIsPutOff has a long outage, and no power at the
// moment at which it is decided what comes late.
func TestABacklogSurvivesAPowerCutWhileItIsPutOff(t *testing.T) {
	t.Parallel()
	d := sending(t, fault.Options{FS: "xfs"}, "", 100, 4, 0)
	outage(t, d, 1500)
	struck := d.Controller.At("uplink.deferred", 0, d.PowerCut)
	d.Link.Restore()
	await(t, struck, "uplink.deferred")
	d.Revive()
	settled(t, d)
	t.Logf("%+v", accounted(t, d))
}

// TestWhatWaitedTooLongIsToldAfterAPowerCut cuts the power after it was written down
// what is too old, and before it is removed.
func TestWhatWaitedTooLongIsToldAfterAPowerCut(t *testing.T) {
	t.Parallel()
	d := sending(t, fault.Options{FS: "ext4"}, `urgent: {from: "sender/urgent", ttl: "3s"}, bulk: from: "sender/bulk", local: {from: "sender/local", to: "sender/inbox"}`, 10, 1, 0)
	d.Account.Expected = []string{twin.LostTTL}
	d.Link.Cut()
	await(t, d.Controller.At("uplink.noted", 0, d.PowerCut), "uplink.noted")
	d.Revive()
	settled(t, d)
	if c := accounted(t, d); c.Lost == 0 {
		t.Errorf("nothing was lost: %+v", c)
	}
}

// TestAHubIsKilledWhileItStores kills the hub, and cuts its power, with a batch on its
// way to the disk, and with one that is there and not confirmed.
func TestAHubIsKilledWhileItStores(t *testing.T) {
	t.Parallel()
	d := sending(t, fault.Options{}, "", 50, 4, 0)
	for _, at := range []string{"hub.storing", "hub.stored"} {
		for name, strike := range map[string]func(){"kill": d.Hub.Kill, "power cut": d.Hub.PowerCut} {
			await(t, d.Hub.Controller.At(at, 5, strike), at)
			counted(t, d, 50) // nothing is to be noticed of it
			d.Revive()
			t.Logf("%s at %s: %+v", name, at, accounted(t, d))
		}
	}
}

// TestAnAgentIsKilledWithThousandsQueued kills it while the link is down, and while
// what waited is on its way.
func TestAnAgentIsKilledWithThousandsQueued(t *testing.T) {
	t.Parallel()
	d := sending(t, fault.Options{}, "", 200, 8, 0)
	d.Link.Cut()
	counted(t, d, 4000)
	d.Kill(fault.AgentPart)
	d.Revive()
	counted(t, d, 100)
	struck := d.Hub.Controller.At("hub.stored", 1, func() { d.Kill(fault.AgentPart) })
	d.Link.Restore()
	await(t, struck, "hub.stored")
	d.Revive()
	d.Deploy(map[string]string{"sender": d.Sender(5, 1, 0)})
	settled(t, d)
	t.Logf("%+v", accounted(t, d))
}

// TestAnOutboxIsWipedWhileTheAgentIsOff removes what waits, or the account of it, or
// both, or puts an old copy of it there. What is gone is told to be, but where nothing
// on the device knows of it; what is there comes, rather twice than never.
func TestAnOutboxIsWipedWhileTheAgentIsOff(t *testing.T) {
	t.Parallel()
	world := fault.NewWorld(t)
	for name, c := range map[string]struct {
		dirs   []string // that are removed; none: an old copy is put in the place of the first
		lost   bool
		repeat bool
	}{
		"messages": {dirs: []string{"jetstream"}, lost: true},
		"account":  {dirs: []string{"outbox"}, repeat: true},
		"both":     {dirs: []string{"jetstream", "outbox"}},
		"old copy": {lost: true, repeat: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := sending(t, fault.Options{World: world}, "", 20, 1, 0)
			queues := filepath.Join(d.StateDir, "jetstream")
			if c.dirs == nil {
				d.PowerOff()
				copied(t, queues, queues+".old")
				d.Boot()
				settled(t, d)
				counted(t, d, 20)
			}
			accounted(t, d)
			d.Link.Cut()
			counted(t, d, 60)
			d.Stop(fault.AgentPart)
			d.PowerOff()
			for _, dir := range c.dirs {
				if err := os.RemoveAll(filepath.Join(d.StateDir, dir)); err != nil {
					t.Fatal(err)
				}
			}
			if c.dirs == nil {
				if err := os.RemoveAll(queues); err != nil {
					t.Fatal(err)
				}
				copied(t, queues+".old", queues)
			}
			switch {
			case name == "both":
				d.Account.Excuse()
			case c.lost:
				d.Account.Excuse("local") // the hub is not told of what stays on the device
				d.Account.Expected = []string{twin.LostWiped}
			}
			d.Account.Repeats = c.repeat
			d.Boot()
			settled(t, d)
			counted(t, d, 20)
			counts := accounted(t, d)
			if (counts.Lost > 0) != c.lost {
				t.Errorf("lost: %+v", counts)
			}
			t.Logf("%+v", counts)
		})
	}
}

// copied copies a folder.
func copied(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatal(fmt.Errorf("copy %s: %w: %s", from, err, out))
	}
}
