package main

import (
	"net"
	"os"
)

// notify tells systemd how the daemon is ("READY=1", "STOPPING=1"), where it
// was started by systemd with Type=notify (sd_notify(3)). Elsewhere it does
// nothing. A failure is systemd's to notice.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	defer conn.Close()
	conn.Write([]byte(state))
}
