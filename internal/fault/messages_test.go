package fault_test

import (
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
