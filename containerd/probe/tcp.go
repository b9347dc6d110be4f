package probe

import (
	"context"
	"fmt"

	"github.com/tidemark-edge/tidemark/schema"
)

// TCP connects, and hangs up.
func TCP(ctx context.Context, dial Dialer, p schema.TCPProbe) error {
	conn, err := dial(ctx, p.Port)
	if err != nil {
		return fmt.Errorf("connect 127.0.0.1:%d: %w", p.Port, reason(ctx, err))
	}
	return conn.Close()
}
