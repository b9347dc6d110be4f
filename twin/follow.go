package twin

import (
	"fmt"

	"github.com/nats-io/nats.go"
)

// OnDesired calls f with properties.desired as they are, and again after each
// change, in rising order of versions, one call at a time. Changes that follow
// each other faster than f returns are one call, with the newest. A change that
// happened while the agent was away follows when it is back. The calls end with
// Close.
func (c *Client) OnDesired(f func(Section)) error {
	news := make(chan struct{}, 1)
	_, err := c.conn.Subscribe(c.prefix+".twin.desired", func(*nats.Msg) { signal(news) })
	if err == nil {
		c.mu.Lock()
		c.followers = append(c.followers, news)
		c.mu.Unlock()
		err = c.start(func() { c.follow(news, f) })
	}
	if err != nil {
		return fmt.Errorf("watch desired: %w", err)
	}
	return nil
}

// follow gets the twin, then again on all news, and calls f with each desired
// version that is newer than the last.
func (c *Client) follow(news <-chan struct{}, f func(Section)) {
	called, last := false, uint64(0)
	for {
		if d, err := c.Get(c.closing); err == nil {
			if desired := d.Properties.Desired; !called || desired.Version > last {
				called, last = true, desired.Version
				f(desired)
			}
		}
		select {
		case <-c.closing.Done():
			return
		case <-news:
		}
	}
}
