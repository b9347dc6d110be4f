package output

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	followPause = 100 * time.Millisecond // between two looks of a follower
	// startedOver is how long a log may be shorter than what was read of it
	// already before it is taken for a new one. A keeper settles it sooner.
	startedOver = 3 * time.Second
)

// Follow writes to w what is there from position on, and what is printed from
// now on, until ctx ends. It goes on through cuts and restarts of the module;
// dropped, which may be nil, is told how many bytes were cut off before they could be read.
func (l *Log) Follow(ctx context.Context, w io.Writer, position int64, dropped func(int64)) error {
	var short time.Time // since when the log is shorter than position
	for {
		next, lost, err := l.Copy(w, position)
		if err != nil {
			return err
		}
		if lost > 0 && dropped != nil {
			dropped(lost)
		}
		position = next
		renewed, err := l.renew()
		if err != nil {
			return err
		}
		if renewed {
			continue
		}
		_, end, err := l.Span()
		switch {
		case err != nil:
			return err
		case end >= position:
			short = time.Time{}
		case short.IsZero():
			short = time.Now()
		case time.Since(short) > startedOver:
			if position, _, err = l.Span(); err != nil {
				return err
			}
		}
		select {
		case <-time.After(followPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// renew opens the log again where somebody put another file in its place. One
// that is gone stays as it was.
func (l *Log) renew() (bool, error) {
	there, err := os.Stat(l.path)
	if err != nil {
		return false, nil
	}
	here, err := l.file.Stat()
	if err != nil {
		return false, fmt.Errorf("follow: %w", err)
	}
	if os.SameFile(here, there) {
		return false, nil
	}
	f, err := openLog(l.path, os.O_RDONLY)
	if err != nil {
		return false, fmt.Errorf("follow: %w", err)
	}
	old := l.file
	l.file = f
	return true, old.Close()
}
