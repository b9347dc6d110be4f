package containerd

import (
	"testing"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/types/known/anypb"
)

func sealedContainer() containers.Container {
	c, _ := sampleContainer()
	c.Spec = &anypb.Any{TypeUrl: "spec", Value: []byte("{}")}
	c.Snapshotter, c.Runtime.Name = "overlayfs", "io.containerd.runc.v2"
	c.Labels[labelSeal] = seal(c)
	return c
}

func TestDrift(t *testing.T) {
	for name, change := range map[string]struct {
		change func(*containers.Container)
		want   string
	}{
		"nothing":          {func(c *containers.Container) {}, ""},
		"a restart":        {func(c *containers.Container) { c.Labels[labelRestarts] = "9"; c.Labels[labelEnded] = "x" }, ""},
		"a foreign label":  {func(c *containers.Container) { c.Labels["owner"] = "me" }, ""},
		"no seal":          {func(c *containers.Container) { delete(c.Labels, labelSeal); c.Spec = nil }, ""},
		"specification":    {func(c *containers.Container) { c.Spec = &anypb.Any{TypeUrl: "spec", Value: []byte("{ }")} }, "its specification was changed"},
		"no specification": {func(c *containers.Container) { c.Spec = (*anypb.Any)(nil) }, "its specification was changed"},
		"nil":              {func(c *containers.Container) { c.Spec = nil }, "its specification was changed"},
		"runtime":          {func(c *containers.Container) { c.Runtime.Name = "io.containerd.kata.v2" }, "its runtime was changed"},
		"runtime options": {func(c *containers.Container) {
			c.Runtime.Options = typeurl.Any(&anypb.Any{TypeUrl: "o", Value: []byte("x")})
		}, "its runtime was changed"},
		"snapshotter": {func(c *containers.Container) { c.Snapshotter = "native" }, "its runtime was changed"},
		"stop signal": {func(c *containers.Container) { c.Labels[labelStopSignal] = "SIGKILL" }, "its labels were changed"},
		"network":     {func(c *containers.Container) { c.Labels[labelNetwork] = "host" }, "its labels were changed"},
		"seal":        {func(c *containers.Container) { c.Labels[labelSeal] = "x" }, "its seal was changed"},
	} {
		c := sealedContainer()
		change.change(&c)
		if got := driftOf(c); got != change.want {
			t.Errorf("%s: %q, want %q", name, got, change.want)
		}
	}
}
