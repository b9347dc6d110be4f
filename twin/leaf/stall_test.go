package leaf

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// TestRepetitionsOfTheKernel reads its table of connections, and noise.
func TestRepetitionsOfTheKernel(t *testing.T) {
	const head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	row := func(remote, state, tries string) string {
		return fmt.Sprintf("   1: 0100007F:C350 %s %s 00000400:00000000 01:00000040 %s     0        0 4242 2 0\n", remote, state, tries)
	}
	const hub, hub6 = "0200010A:1CFE", "0000000000000000FFFF00000200010A:1CFE"
	for name, c := range map[string]struct {
		table string
		want  bool
	}{
		"in vain":         {head + row("0100007F:0050", "01", "00000000") + row(hub, "01", "00000005"), true},
		"IPv6":            {head + row(hub6, "01", "00000002"), true},
		"once":            {head + row(hub, "01", "00000001"), false},
		"answered":        {head + row(hub, "01", "00000000"), false},
		"another port":    {head + row("0200010A:1CFF", "01", "00000005"), false},
		"not established": {head + row(hub, "02", "00000005"), false},
		"empty":           {"", false},
		"cut":             {head + "   1: 0100007F:C350 " + hub, false},
		"noise":           {head + row(hub, "01", "-5") + row(hub, "01", "zzzz") + strings.Repeat("x", 1<<17), false},
	} {
		if got := repeatsIn(strings.NewReader(c.table), 7422); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestSilentIsWhoDoesNotAnswer: neither a hub that was sent nothing is, nor one that
// answers, nor another connection.
func TestSilentIsWhoDoesNotAnswer(t *testing.T) {
	var s stall
	now := time.Unix(1000, 0)
	see := func(id uint64, in, out int64, want bool) {
		t.Helper()
		now = now.Add(stallAfter)
		if got := s.silent(&server.LeafInfo{ID: id, InMsgs: in, OutMsgs: out}, now); got != want {
			t.Errorf("connection %d, %d in, %d out: silent %v", id, in, out, got)
		}
	}
	see(1, 5, 5, false)
	see(1, 5, 5, false)
	see(1, 5, 6, true)
	see(1, 5, 9, true)
	see(1, 6, 9, false)
	see(1, 6, 10, true)
	see(2, 6, 10, false)
	see(2, 6, 10, false)
	see(2, 6, 11, true)
}
