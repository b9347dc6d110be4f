// Module is what the devices of the fault tests run. It reads a file of its image
// and ends with exit code 97 when that is not what was packed: after a power cut
// files have been found to be there, and empty (containerd#5854). Then it says that
// it runs, and waits to be ended.
//
// With CRASH=<code> in its environment it ends with that exit code after AFTER, a
// duration. With "probe" as its argument it does nothing, successfully.
package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const damaged = 97

func main() {
	if len(os.Args) > 1 && os.Args[1] == "probe" {
		return
	}
	content, err := os.ReadFile("/content")
	if err != nil || len(content) < sha256.Size || sha256.Sum256(content[sha256.Size:]) != [sha256.Size]byte(content[:sha256.Size]) {
		fmt.Println("the image is damaged:", len(content), "bytes,", err)
		os.Exit(damaged)
	}
	fmt.Printf("run %x with %d bytes\n", content[:4], len(content))
	done := make(chan os.Signal, 1)
	signal.Notify(done, syscall.SIGTERM)
	code, err := strconv.Atoi(os.Getenv("CRASH"))
	if err != nil {
		<-done
		return
	}
	after, _ := time.ParseDuration(os.Getenv("AFTER"))
	select {
	case <-done:
	case <-time.After(after):
		fmt.Println("crash on purpose")
		os.Exit(code)
	}
}
