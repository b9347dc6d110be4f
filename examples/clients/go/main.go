// Go is a sample module, a fan: it turns as fast as its desired properties say
// and says so, sends each change to the hub, obeys commands that other modules
// send it, and answers who asks for its speed. The folder node has the same
// program on a stock NATS library.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/tidemark-edge/tidemark/twin"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()

	client, err := twin.Connect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	f := fan{client: client}

	// What Git desires: now, and whenever it changes.
	if err := client.OnDesired(func(desired twin.Section) { f.follow(ctx, desired) }); err != nil {
		log.Fatal(err)
	}
	// What routes lead to the input "commands". An error makes it come again.
	if err := client.OnInput("commands", f.obey); err != nil {
		log.Fatal(err)
	}
	// What the cloud asks, or another module that may.
	if err := client.OnMethod("speed", f.tell); err != nil {
		log.Fatal(err)
	}
	<-ctx.Done()
}

type fan struct {
	client *twin.Client
	speed  atomic.Int64
}

func (f *fan) follow(ctx context.Context, desired twin.Section) {
	var want struct {
		Speed int64 `json:"speed"`
	}
	if err := desired.Decode(&want); err != nil {
		log.Printf("desired version %d: %v", desired.Version, err)
		return
	}
	f.speed.Store(want.Speed)
	if _, err := f.client.Report(ctx, map[string]any{"speed": want.Speed, "follows": desired.Version}); err != nil {
		log.Print(err)
	}
	change, _ := json.Marshal(map[string]any{"speed": want.Speed})
	if err := f.client.Send(ctx, "changes", change); err != nil { // returns when it is on the device's disk
		log.Print(err)
		return
	}
	if _, err := f.client.Report(ctx, map[string]any{"sent": desired.Version}); err != nil {
		log.Print(err)
	}
}

func (f *fan) obey(ctx context.Context, m twin.Message) error {
	var command struct {
		Speed int64 `json:"speed"`
	}
	if err := json.Unmarshal(m.Body, &command); err != nil {
		log.Printf("command %d from %s: %v", m.Seq, m.From, err)
		return nil // it is no better when it comes again
	}
	_, err := f.client.Report(ctx, map[string]any{"speed": command.Speed, "by": m.From})
	if err == nil {
		f.speed.Store(command.Speed)
	}
	return err
}

func (f *fan) tell(_ context.Context, body []byte) ([]byte, error) {
	if len(body) > 0 {
		return nil, &twin.Error{Code: twin.CodeMalformed, Message: "speed takes no arguments"}
	}
	return json.Marshal(map[string]any{"speed": f.speed.Load()})
}
