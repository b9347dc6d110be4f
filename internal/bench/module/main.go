// Module is what the benchmarks run: it prints when its main began, and waits to
// be ended.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	fmt.Println("main", time.Now().UnixNano())
	done := make(chan os.Signal, 1)
	signal.Notify(done, syscall.SIGTERM)
	<-done
}
