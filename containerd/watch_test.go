package containerd_test

import (
	"context"
	"time"

	"github.com/tidemark-edge/tidemark/internal/harness"
)

// Nothing else tells that it is gone before somebody next looks.
func deadDaemonKicks(s *stage) {
	ctx, cancel := context.WithCancel(s.ctx)
	kicks := make(chan struct{}, 1000)
	done := make(chan struct{})
	go func() { defer close(done); s.Watch(ctx, func() { kicks <- struct{}{} }) }()
	defer func() { cancel(); <-done }()
	<-kicks // it listens
	s.daemon.Kill()
	select {
	case <-kicks:
	case <-time.After(time.Minute):
		s.t.Error("the daemon is gone, and nobody was told")
	}
	if _, err := s.Observe(s.ctx); err == nil {
		s.t.Error("observed without a daemon")
	}
	s.daemon.Start()
	harness.Eventually(s.t, func() error {
		_, err := s.Observe(s.ctx)
		return err
	})
}
