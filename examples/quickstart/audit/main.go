// Audit reads all readings of a module from the hub's stream and checks that
// they are numbered 1, 2, 3, … as they come: in order, none lost, none twice.
//
//	audit --hub HOST:PORT --creds SEED --device DEVICE --module MODULE [--upto N]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidemark-edge/tidemark/twin"
)

func main() {
	log.SetFlags(0)
	hub := flag.String("hub", "127.0.0.1:4223", "the hub's address for clients")
	creds := flag.String("creds", "", "file with the operator's seed")
	device := flag.String("device", "", "the device")
	module := flag.String("module", "", "the module")
	upto := flag.Int("upto", 1, "at least so many must have come")
	flag.Parse()

	key, err := nats.NkeyOptionFromSeed(*creds)
	if err != nil {
		log.Fatal(err)
	}
	nc, err := nats.Connect(*hub, key)
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	n, err := audit(ctx, nc, twin.LaneOut(*device, "*", *module, "reading"))
	if err == nil && n < *upto {
		err = fmt.Errorf("only 1 to %d have come, not yet %d", n, *upto)
	}
	if err != nil {
		log.Fatalf("%s: %v", *module, err)
	}
	fmt.Printf("%s: 1 to %d came in order, none lost, none twice\n", *module, n)
}

// audit returns the number of the last reading on the subject.
func audit(ctx context.Context, nc *nats.Conn, subject string) (int, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, err
	}
	stream, err := js.Stream(ctx, "MESSAGES")
	if err != nil {
		return 0, err
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{FilterSubjects: []string{subject}})
	if err != nil {
		return 0, err
	}
	n := 0
	for {
		batch, err := consumer.FetchNoWait(1000)
		if err != nil {
			return 0, err
		}
		before := n
		for msg := range batch.Messages() {
			var reading struct{ N int }
			if err := json.Unmarshal(msg.Data(), &reading); err != nil {
				return 0, err
			}
			if reading.N != n+1 {
				return 0, fmt.Errorf("after %d came %d", n, reading.N)
			}
			n = reading.N
		}
		if err := batch.Error(); err != nil && !errors.Is(err, jetstream.ErrNoMessages) {
			return 0, err
		}
		if n == before {
			return n, nil
		}
	}
}
