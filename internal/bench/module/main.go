// Module is what the benchmarks run: it prints when its main began, and waits to
// be ended. With the argument "listen" it also accepts connections, for probes.
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

func main() {
	fmt.Println("main", time.Now().UnixNano())
	done := make(chan os.Signal, 1)
	signal.Notify(done, syscall.SIGTERM)
	if slices.Contains(os.Args, "listen") {
		go listen()
	}
	<-done
}

func listen() {
	l, err := net.Listen("tcp", "127.0.0.1:8080")
	for err == nil {
		var conn net.Conn
		if conn, err = l.Accept(); err == nil {
			conn.Close()
		}
	}
	fmt.Println(err)
	os.Exit(1)
}
