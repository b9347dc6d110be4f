package reconciler

import (
	"testing"

	"github.com/tidemark-edge/tidemark/schema"
)

// Of a commit that is not the newest any more an order to go back says nothing:
// it would be taken over in place of what the person wants back.
func TestAStagedCommitThatIsNotTheNewestIsNotTakenOver(t *testing.T) {
	at := func(commit string) schema.Desired {
		return schema.Desired{Revision: schema.Revision{Commit: commit}, Device: "hannover01"}
	}
	r := &Reconciler{StateDir: t.TempDir()}
	if err := (state{Target: at("b0"), LastGood: at("b0"), Return: &comeback{Definition: at("a0")}}).save(r.StateDir); err != nil {
		t.Fatal(err)
	}
	r.load()
	r.newest.revision.Commit = "d0"
	if r.adopt(at("c0")) {
		t.Error("took over what was staged before the order, and is not the newest")
	}
	if !r.adopt(at("a0")) || r.state.Return != nil || r.state.Target.Revision.Commit != "a0" {
		t.Errorf("did not take over what a person wants back: %+v", r.state)
	}
	if !r.adopt(at("d0")) {
		t.Error("did not take over the newest")
	}
}
