package main

import (
	"context"
	"io/fs"

	"github.com/tidemark-edge/tidemark/reconciler"
	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/schema/sandbox"
)

// sandboxAt evaluates definitions in a child process of this binary, within the
// default limits. dir is the device's directory; empty finds it by name.
func sandboxAt(dir string) sandbox.Renderer { return sandbox.Renderer{Dir: dir} }

// permitted refuses a definition that the device's owner does not permit, as
// one that does not render: before what runs is touched.
type permitted struct {
	reconciler.Renderer
	permits func(schema.Desired) error
}

// Render implements reconciler.Renderer.
func (p permitted) Render(ctx context.Context, tree fs.FS, device string) (schema.Desired, error) {
	desired, err := p.Renderer.Render(ctx, tree, device)
	if err == nil {
		err = p.permits(desired)
	}
	return desired, err
}
