package fault_test

import (
	"os"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/fault"
)

func TestMain(m *testing.M) {
	fault.Apart()
	if dir := os.Getenv(writesTo); dir != "" {
		writeAndTell(dir)
	}
	os.Exit(m.Run())
}
