package queue_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue"
	"github.com/tidemark-edge/tidemark/twin/outbox/queue/queuetest"
)

func TestContract(t *testing.T) {
	queuetest.Contract(t, func(t *testing.T) queuetest.Subject {
		s, err := server.NewServer(&server.Options{
			DontListen: true, JetStream: true, StoreDir: t.TempDir(), JetStreamMaxStore: 1 << 30, JetStreamMaxMemory: 1 << 20, SyncAlways: true, NoSigs: true, NoLog: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		if !s.ReadyForConnections(30 * time.Second) {
			t.Fatal("the server is not ready")
		}
		nc, err := nats.Connect("", nats.InProcessServer(s))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		q, err := queue.Open(t.Context(), nc, queue.Config{Lane: "lane", MaxBytes: 16 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return queuetest.Subject{Queue: q, Store: func(count int) {
			r := queue.Record{Count: count, Stored: queue.Stamp{Boot: "boot"}}
			for range count {
				r.Items = twin.Item{Count: 1, Module: "sensor", Name: "n", Body: []byte("x")}.Append(r.Items)
			}
			if _, err := q.Append(context.Background(), r); err != nil {
				t.Error(err)
			}
		}}
	})
}
