package twin

import (
	"cmp"
	"context"
	"crypto/rand"

	"github.com/nats-io/nats.go"
)

// RequestMsg asks a module, as (*nats.Conn).RequestMsgWithContext would, for an
// answer at an inbox that it uses once and that nobody can foresee. The inboxes of
// a connection's own requests have a part in common, which who is asked gets to see,
// and for the rest numbers that can be calculated from one of them: whoever may
// publish to inboxes could answer in the place of others, JetStream included.
func RequestMsg(ctx context.Context, conn *nats.Conn, m *nats.Msg) (*nats.Msg, error) {
	ask := *m
	ask.Reply = cmp.Or(conn.Opts.InboxPrefix, "_INBOX") + "." + rand.Text()
	answers := make(chan *nats.Msg, 1)
	sub, err := conn.ChanSubscribe(ask.Reply, answers)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // the connection may have been closed
	if err := conn.PublishMsg(&ask); err != nil {
		return nil, err
	}
	var answer *nats.Msg
	select {
	case answer = <-answers:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if len(answer.Data) == 0 && answer.Header.Get("Status") == "503" {
		return nil, nats.ErrNoResponders
	}
	return answer, nil
}
