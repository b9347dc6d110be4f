package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/tidemark-edge/tidemark/schema"
)

// maxHeader bounds the header of an answer, in bytes.
const maxHeader = 16 << 10

// HTTP asks with GET. A status from 200 to 399 is success: a redirection is
// not followed, and the body of a success is not read.
func HTTP(ctx context.Context, dial Dialer, p schema.HTTPProbe) error {
	target := fmt.Sprintf("http://127.0.0.1:%d%s", p.Port, cmp.Or(p.Path, "/"))
	if err := get(ctx, dial, p.Port, target); err != nil {
		return fmt.Errorf("GET %s: %w", target, err)
	}
	return nil
}

func get(ctx context.Context, dial Dialer, port int, target string) error {
	where, err := url.Parse(target)
	if err != nil || where.Hostname() != "127.0.0.1" || !strings.HasPrefix(where.Path, "/") {
		return errors.New("its path is none: it begins with a slash, and escapes what a URL cannot hold")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "tidemark")
	// No proxy of the environment, and no connection kept: the module may be
	// another one by the next time.
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, port) },
		DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeader,
	}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return reason(ctx, err)
	}
	defer response.Body.Close()
	if response.StatusCode >= 200 && response.StatusCode < 400 {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 2*MaxAnswer)) // what came until then is worth showing
	if said := Quote(body); said != "" {
		return fmt.Errorf("status %d: %s", response.StatusCode, said)
	}
	return fmt.Errorf("status %d", response.StatusCode)
}
