package twin

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
)

// Get returns the whole twin of the module.
func (c *Client) Get(ctx context.Context) (Document, error) {
	data, err := c.repeat(ctx, &nats.Msg{Subject: c.prefix + ".twin.get"})
	if err != nil {
		return Document{}, fmt.Errorf("get twin: %w", err)
	}
	if a, err := ReadAnswer(data); err != nil && a.Error != nil {
		return Document{}, fmt.Errorf("get twin: %w", err)
	}
	d, err := ReadDocument(data)
	if err != nil {
		return Document{}, err
	}
	if d.Device != c.Device || d.Module != c.Module {
		return Document{}, errors.New("get twin: the answer is another's twin")
	}
	return d, nil
}

// Report merges patch into properties.reported (RFC 7396: null deletes) and
// returns its new version, once it is on the device's disk. A patch that the
// module's definition or the limits do not allow is an *Error with the path of
// the member, and changes nothing. It is repeated until ctx ends while the
// agent is away, which does no harm: the same patch twice is the same state.
func (c *Client) Report(ctx context.Context, patch map[string]any) (uint64, error) {
	return c.update(ctx, "reported", patch, c.repeat)
}

// Replace makes values all of properties.reported, and is like Report otherwise.
// Members that are null are left out.
func (c *Client) Replace(ctx context.Context, values map[string]any) (uint64, error) {
	return c.update(ctx, "replace", values, c.repeat)
}

// IfVersion makes updates that are refused with CodePrecondition, and change
// nothing, unless reported stands at this version: that which the caller has
// made up its mind from.
func (c *Client) IfVersion(version uint64) Conditional { return Conditional{c, version} }

// Conditional updates reported from one version only; see Client.IfVersion.
// Since the first update of two that are alike changes the version, it is asked
// once: on an error that is no *Error the update may have been made all the same,
// and Get tells.
type Conditional struct {
	client  *Client
	version uint64
}

// Report is Client.Report under the condition.
func (u Conditional) Report(ctx context.Context, patch map[string]any) (uint64, error) {
	return u.client.update(ctx, "reported", patch, u.once)
}

// Replace is Client.Replace under the condition.
func (u Conditional) Replace(ctx context.Context, values map[string]any) (uint64, error) {
	return u.client.update(ctx, "replace", values, u.once)
}

func (u Conditional) once(ctx context.Context, msg *nats.Msg) ([]byte, error) {
	msg.Header = nats.Header{HeaderIfMatch: {strconv.FormatUint(u.version, 10)}}
	return u.client.request(ctx, msg)
}

func (c *Client) update(ctx context.Context, how string, values map[string]any, ask func(context.Context, *nats.Msg) ([]byte, error)) (uint64, error) {
	checked, e := plain(values)
	if e != nil {
		return 0, fmt.Errorf("report: %w", e)
	}
	body := appendValue(nil, checked)
	if len(body) > MaxPatch {
		return 0, fmt.Errorf("report: %w", &Error{Code: CodeTooLarge, Message: fmt.Sprintf("patch has %d bytes, and may have %d", len(body), MaxPatch)})
	}
	data, err := ask(ctx, &nats.Msg{Subject: c.prefix + ".twin." + how, Data: body})
	if err != nil {
		return 0, fmt.Errorf("report: %w", err)
	}
	a, err := ReadAnswer(data)
	if err != nil {
		return 0, fmt.Errorf("report: %w", err)
	}
	return a.Version, nil
}
