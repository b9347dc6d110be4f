//go:build failpoint

package failpoint

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
)

// Variable is the environment variable with the controller's socket; without it
// nothing is told to anybody.
const Variable = "TIDEMARK_FAILPOINTS"

var controller = os.Getenv(Variable)

// Reach tells the controller that the place of this name has been reached, and
// returns when it answers, or when there is none.
func Reach(name string) {
	if controller == "" {
		return
	}
	conn, err := net.Dial("unix", controller)
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, name, os.Getpid()); err == nil {
		conn.Read(make([]byte, 1))
	}
}

// init answers what only the process itself knows: how many goroutines it has, and
// where they are.
func init() {
	if controller != "" && len(os.Args) > 1 && os.Args[1] == "agent" {
		go answer()
	}
}

func answer() {
	conn, err := net.Dial("unix", controller)
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintln(conn, "questions", os.Getpid())
	for questions := bufio.NewScanner(conn); questions.Scan(); {
		stacks := make([]byte, 4<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		// As many lines as said in the first.
		text := strings.TrimRight(string(stacks), "\n")
		fmt.Fprintf(conn, "%d %d\n%s\n", runtime.NumGoroutine(), strings.Count(text, "\n")+1, text)
	}
}
