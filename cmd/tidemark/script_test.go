package main

import (
	"context"
	"flag"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// TestMain makes this test binary the tidemark that scripts run, and that the
// sandbox starts as its child.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "evaluate" {
		os.Exit(run(context.Background(), os.Args[1:]))
	}
	testscript.Main(m, map[string]func(){"tidemark": main})
}

// TestScript plays the sessions in testdata/script: what a person types, and
// what is printed.
func TestScript(t *testing.T) {
	cue := harness.Tool(t, "cue")
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("CUE", cue)
			env.Setenv("CUE_REGISTRY", "none")
			env.Setenv("CUE_CACHE_DIR", env.Getenv("WORK")+"/cache")
			return nil
		},
	})
}
