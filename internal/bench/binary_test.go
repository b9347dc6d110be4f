//go:build bench

package bench

import (
	"os"
	"testing"
)

func measureBinary(t *testing.T, f *table) {
	info, err := os.Stat(tidemark())
	if err != nil {
		t.Fatal(err)
	}
	f.add("binary_mb", float64(info.Size())/1e6, "MB", "agent, hub and all commands, static, stripped, linux/amd64")
}
