package boot_test

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/internal/boot"
)

func TestID(t *testing.T) {
	id, err := boot.ID()
	if err != nil {
		t.Fatal(err)
	}
	if id == "" || strings.TrimSpace(id) != id {
		t.Errorf("%q", id)
	}
	if again, err := boot.ID(); err != nil || again != id {
		t.Errorf("%q and then %q, %v", id, again, err)
	}
}

// The kernel says the same in /proc/uptime.
func TestUptime(t *testing.T) {
	before := boot.Uptime()
	b, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	after := boot.Uptime()
	seconds, err := strconv.ParseFloat(strings.Fields(string(b))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	const hundredth = 10 * time.Millisecond // to which the file rounds down
	told := time.Duration(seconds * float64(time.Second))
	if before <= 0 || told < before-2*hundredth || told > after+hundredth {
		t.Errorf("%v between %v and %v", told, before, after)
	}
}
