package harness

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"syscall"
)

// Machine describes what a test runs on: cores, memory, kernel.
func Machine() string {
	var uname syscall.Utsname
	syscall.Uname(&uname)
	var release []byte
	for _, c := range uname.Release {
		if c == 0 {
			break
		}
		release = append(release, byte(c))
	}
	cpu := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if m := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(info); m != nil {
			cpu = string(m[1])
		}
	}
	var sys syscall.Sysinfo_t
	syscall.Sysinfo(&sys)
	return fmt.Sprintf("%d cores of %s, %d GiB, Linux %s", runtime.NumCPU(), cpu, uint64(sys.Totalram)*uint64(sys.Unit)>>30, release)
}
