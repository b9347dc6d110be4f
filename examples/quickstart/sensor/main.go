// Sensor is a sample module: it reports a temperature in its twin and sends each
// reading to the hub, numbered, at the interval that its desired properties say.
package main

import (
	"context"
	"encoding/json"
	"log"
	"math"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

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

	var interval atomic.Int64
	interval.Store(int64(time.Second))
	err = client.OnDesired(func(desired twin.Section) {
		s, _ := desired.Values["interval"].(string)
		if d, err := time.ParseDuration(s); err == nil && d > 0 {
			interval.Store(int64(d))
		}
		log.Printf("desired version %d: every %v", desired.Version, time.Duration(interval.Load()))
	})
	if err != nil {
		log.Fatal(err)
	}

	for n := 1; ctx.Err() == nil; n++ {
		temperature := math.Round(200+10*math.Sin(float64(n)/10)) / 10
		if _, err := client.Report(ctx, map[string]any{"temperature": temperature, "readings": n}); err != nil {
			log.Printf("report: %v", err)
		}
		reading, _ := json.Marshal(map[string]any{"n": n, "temperature": temperature})
		if err := client.Send(ctx, "reading", reading); err != nil { // returns when it is on the device's disk
			log.Printf("send: %v", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(interval.Load())):
		}
	}
}
