// Sender is the module of the fault tests that sends messages. For each output that
// NAMES lists, SERIES goroutines send RATE numbered messages a second each, one after
// the other. What it was told is appended to a file in /told, which is no part of the
// device: a power cut does not take it back. Each line is
//
//	try <output> <series> <n>      it is about to be sent
//	took <output> <series> <n>     the device said that it is on its disk
//	no <output> <series> <n> <why> the device refused it with this code: it is nowhere,
//	                               or, with twin.CodeFailed, perhaps on its disk
//	got <series> <n>               it came at the input "inbox"
//
// A series is named after the sender's life, so no number is sent again. After LAST
// numbers of each series, if that is set, it sends no more. Each message is PAD bytes
// longer than it need be.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tidemark-edge/tidemark/twin"
)

// number is the body of a message.
type number struct {
	Series string `json:"series"`
	N      uint64 `json:"n"`
	Pad    string `json:"pad,omitempty"`
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "probe" {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "sender:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	life := strings.ToLower(rand.Text()[:8])
	told, err := os.OpenFile("/told/"+life, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	note := func(line string) { // one write is one line, whoever else writes
		if _, err := told.WriteString(line + "\n"); err != nil {
			fmt.Fprintln(os.Stderr, "sender:", err)
			os.Exit(1)
		}
	}
	client, err := twin.Connect(ctx)
	if err != nil {
		return err
	}
	err = client.OnInput("inbox", func(_ context.Context, m twin.Message) error {
		var b number
		if err := json.Unmarshal(m.Body, &b); err != nil {
			return err
		}
		note(fmt.Sprintf("got %s %d", b.Series, b.N))
		return nil
	})
	if err != nil {
		return err
	}
	for _, output := range strings.Fields(os.Getenv("NAMES")) {
		for i := range setting("SERIES", 1) {
			go send(ctx, client, output, fmt.Sprintf("%s-%s-%d", life, output, i), note)
		}
	}
	fmt.Println("send as", life)
	<-ctx.Done()
	return nil
}

// setting is a number of the environment.
func setting(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// send sends a series.
func send(ctx context.Context, client *twin.Client, output, series string, note func(string)) {
	pad := strings.Repeat("-", setting("PAD", 0))
	pause, last := time.Second/time.Duration(setting("RATE", 10)), uint64(setting("LAST", 1<<31-1))
	for n := uint64(1); n <= last && ctx.Err() == nil; n++ {
		body, _ := json.Marshal(number{series, n, pad}) // a string and a number
		line := fmt.Sprintf("%s %s %d", output, series, n)
		note("try " + line)
		try, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := client.Send(try, output, body)
		cancel()
		var refused *twin.Error
		switch {
		case err == nil:
			note("took " + line)
		case errors.As(err, &refused):
			note(fmt.Sprintf("no %s %d", line, refused.Code))
		}
		time.Sleep(pause)
	}
}
