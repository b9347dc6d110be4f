package containerd

import (
	"bytes"
	"os"
	"testing"
)

// greengrass-nucleus#1649: logs filled the disk.
func TestLogsAreBounded(t *testing.T) {
	r := &Runtime{StateDir: t.TempDir()}
	if err := r.boundLog("m"); err != nil {
		t.Fatalf("no log yet: %v", err)
	}
	if _, err := r.openLog("m"); err != nil {
		t.Fatal(err)
	}
	shim, err := os.OpenFile(r.logFile("m"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer shim.Close()
	line := append(bytes.Repeat([]byte("x"), 1023), '\n')
	for range 3 * maxLog / 1024 {
		if _, err := shim.Write(line); err != nil {
			t.Fatal(err)
		}
		if err := r.boundLog("m"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := shim.WriteString("the end\n"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(r.logFile("m"))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > maxLog+1024 || !bytes.HasSuffix(b, []byte("x\nthe end\n")) {
		t.Errorf("%d bytes, ending in %q", len(b), b[len(b)-20:])
	}
	if info, _ := os.Stat(r.logFile("m")); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}
