package main

import "github.com/tidemark-edge/tidemark/schema/sandbox"

// sandboxAt evaluates definitions in a child process of this binary, within the
// default limits. dir is the device's directory; empty finds it by name.
func sandboxAt(dir string) sandbox.Renderer { return sandbox.Renderer{Dir: dir} }
