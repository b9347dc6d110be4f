package containerd

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/tidemark-edge/tidemark/internal/boot"
)

// tick is the unit of times in /proc, on every architecture that Go knows.
const tick = time.Second / 100

// processStart is how long after the boot the process started.
func processStart(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStart(b)
}

// parseStart reads field 22 of /proc/<pid>/stat. The second field, the
// program's name, may hold anything, so fields are counted from its end.
func parseStart(stat []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(stat, ')')
	fields := bytes.Fields(stat[end+1:])
	const starttime = 22 - 3 // the first field after the name is the third
	if end < 0 || len(fields) <= starttime {
		return 0, fmt.Errorf("process status %.80q: too few fields", stat)
	}
	n, err := strconv.ParseInt(string(fields[starttime]), 10, 64)
	if err != nil || n < 0 || n > int64(time.Duration(1<<62)/tick) {
		return 0, fmt.Errorf("process status: start time %q", fields[starttime])
	}
	return time.Duration(n) * tick, nil
}

// bootTime is when this machine booted, by its present wall clock.
func bootTime(now time.Time) time.Time { return now.Add(-boot.Uptime()) }
