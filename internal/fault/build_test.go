package fault_test

import (
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/fault"
)

func TestTmp(t *testing.T) {
	d := fault.NewDevice(t, fault.Options{FS: "ext4"})
	t0 := time.Now()
	d.Boot()
	t.Log("boot", time.Since(t0))
	d.Deploy(map[string]string{"a": `image: "` + string(d.World.Images[0]) + `"`, "b": `image: "` + string(d.World.Images[1]) + `"`})
	r, err := d.Settle(30 * time.Second)
	t.Log("settle", time.Since(t0), r.Phase, err)
	d.Invariants(t)
	t.Log("invariants", time.Since(t0))
	c, err := d.Census()
	t.Logf("%+v %v", c, err)
	t0 = time.Now()
	d.PowerCut()
	d.PowerOff()
	t.Log("off", time.Since(t0))
	d.Boot()
	t.Log("boot", time.Since(t0))
	r, err = d.Settle(30 * time.Second)
	t.Log("settle", time.Since(t0), r.Phase, err)
	d.Invariants(t)
	t.Log("invariants", time.Since(t0))
	t.Log(d.Controller.Reached())
}
