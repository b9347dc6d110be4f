package fault_test

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/fault"
)

func TestMain(m *testing.M) {
	fault.Apart()
	if dir := os.Getenv(writesTo); dir != "" {
		writeAndTell(dir)
	}
	// Half of the time devices wait: more of them than there are cores, unless go test
	// was told how many.
	if err := flag.Set("test.parallel", strconv.Itoa(runtime.GOMAXPROCS(0)+1)); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
