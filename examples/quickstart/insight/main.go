// Insight is a sample module that uses a stock NATS client only. It says who it
// is, reports what happens when it reaches for the twin of another module, and
// answers that it is well.
package main

import (
	"encoding/json"
	"errors"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

func main() {
	identity := os.Getenv("TIDEMARK_IDENTITY") // /devices/<device>/modules/<module>
	scope := strings.ReplaceAll(strings.TrimPrefix(identity, "/"), "/", ".")
	key, err := nats.NkeyOptionFromSeed(os.Getenv("TIDEMARK_CREDS"))
	if err != nil {
		log.Fatal(err)
	}
	refused := make(chan error, 1)
	nc, err := nats.Connect(os.Getenv("TIDEMARK_URL"), key,
		nats.CustomInboxPrefix("_INBOX."+scope),
		nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.IgnoreAuthErrorAbort(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			select {
			case refused <- err:
			default:
			}
		}))
	if err != nil {
		log.Fatal(err)
	}

	// Another's subject: the leaf refuses it, whatever this program sends.
	other := strings.TrimSuffix(scope, ".insight") + ".sensor.twin.reported"
	for !nc.IsConnected() {
		time.Sleep(50 * time.Millisecond)
	}
	if err := nc.Publish(other, []byte(`{"temperature": 1000}`)); err != nil {
		log.Fatal(err)
	}
	trespass := "not refused"
	select {
	case err := <-refused:
		if errors.Is(err, nats.ErrPermissionViolation) {
			trespass = "refused: " + err.Error()
		}
	case <-time.After(5 * time.Second):
	}

	report, _ := json.Marshal(map[string]any{"identity": identity, "greeting": os.Getenv("GREETING"), "trespass": trespass})
	answer, err := nc.Request(scope+".twin.reported", report, 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("reported: %s", answer.Data)

	// The device's agent asks this method, as the definition says, whether insight works.
	if _, err := nc.Subscribe(scope+".rpc.health", func(question *nats.Msg) { _ = question.Respond(nil) }); err != nil {
		log.Fatal(err)
	}

	done := make(chan os.Signal, 1)
	signal.Notify(done, syscall.SIGTERM)
	<-done
}
