package probe

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 16 << 10

// HTTP asks with GET. A status from 200 to 399 is success: a redirection is
// not followed, and the body of a success is not read.
//
// It does without a client of the library's: that one keeps connections, knows
// of proxies, and logs what a module sends unasked.
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
	conn, err := dial(ctx, port)
	if err != nil {
		return reason(ctx, err)
	}
	defer conn.Close()
	// The context ends what reads and writes.
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	response, err := ask(conn, where)
	if err != nil {
		return reason(ctx, err)
	}
	if response.StatusCode >= 200 && response.StatusCode < 400 {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 2*MaxAnswer)) // what came until then is worth showing
	if said := Quote(body); said != "" {
		return fmt.Errorf("status %d: %s", response.StatusCode, said)
	}
	return fmt.Errorf("status %d", response.StatusCode)
}

// ask sends the question and reads the header of the answer, and of those
// before it that announce one.
func ask(conn net.Conn, where *url.URL) (*http.Response, error) {
	question := &http.Request{
		Method: http.MethodGet, URL: where, Host: where.Host, Header: http.Header{"User-Agent": {"tidemark"}}, Close: true,
	}
	if err := question.Write(conn); err != nil {
		return nil, err
	}
	answer := &io.LimitedReader{R: conn, N: maxAnswer}
	reader := bufio.NewReader(answer)
	for {
		response, err := http.ReadResponse(reader, question)
		if err != nil && answer.N <= 0 {
			return nil, fmt.Errorf("its header is longer than %d bytes", maxAnswer)
		}
		if err != nil || response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			return response, err
		}
	}
}
