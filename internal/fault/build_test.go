package fault_test

import (
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/fault"
)

func TestTmp(t *testing.T) {
	w := fault.NewWorld(t)
	for _, v := range []string{"1.6", "2"} {
		for _, fs := range []string{"ext4", "xfs"} {
			d := fault.NewDevice(t, fault.Options{FS: fs, Containerd: v, World: w})
			t0 := time.Now()
			d.Boot()
			m := ", restart: min: \"0s\""
			d.Deploy(map[string]string{"a": `image: "` + string(d.World.Images[0]) + `"` + m, "b": `image: "` + string(d.World.Images[1]) + `"` + m})
			r, err := d.Settle(30 * time.Second)
			t.Log("settle", time.Since(t0), r.Phase, err)
			d.Invariants(t)
			t.Log("invariants", time.Since(t0))
			t0 = time.Now()
			d.PowerCut()
			d.PowerOff()
			d.Boot()
			r, err = d.Settle(30 * time.Second)
			t.Log("settle", time.Since(t0), r.Phase, err)
			d.Invariants(t)
			t.Log("invariants", time.Since(t0))
			t.Log(d.Controller.Reached())
			d.PowerOff()
		}
	}
}
