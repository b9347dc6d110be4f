package main

import (
	"os"
	"strings"
)

// bootID tells one boot of this machine from another. Where the kernel does not
// say it is empty, and no start of the agent counts as a boot.
func bootID() string {
	id, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(id))
}
