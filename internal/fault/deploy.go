package fault

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// commit is a revision of the fleet repository.
type commit struct {
	hashes  map[string]string       // of each module's definition, by name
	images  map[string]schema.Image // by module
	crashes map[string]bool         // modules that end by themselves, on purpose
}

// scaffold makes the first commit, in which the device is not declared.
func (d *Device) scaffold() {
	files, err := schema.Scaffold{Site: "lab", Device: d.Name}.Files()
	if err != nil {
		d.t.Fatal(err)
	}
	initial := map[string]string{}
	for path, content := range files {
		initial[path] = string(content)
	}
	initial[d.definition()] = "package fleet\n\ndevice: #device & {name: \"" + d.Name + "\"}\n" + d.linked(nil)
	d.head = d.Git.SignedCommit(initial)
}

// routes are those of Sender's outputs, unless the test says otherwise.
const routes = `
	urgent: {from: "sender/urgent", priority: 1, order: "strict"}
	bulk: {from: "sender/bulk", priority: 7}
	local: {from: "sender/local", to: "sender/inbox"}
`

// linked is what the definition of a device with a hub has more.
func (d *Device) linked(modules map[string]string) string {
	more := ""
	if d.identity != "" {
		more = fmt.Sprintf("\ndevice: identity: %q\n", d.identity)
	}
	if modules["sender"] != "" { // which the routes name
		more += fmt.Sprintf("\ndevice: routes: {%s}\n", d.Routes)
	}
	return more
}

// Sender is the body of a module that sends messages by all routes: series goroutines
// for each, rate messages a second each; and no more than last each, where that is
// not 0. It has to have the name "sender".
func (d *Device) Sender(rate, series, last int) string {
	env := fmt.Sprintf(`NAMES: "urgent bulk local", RATE: "%d", SERIES: "%d"`, rate, series)
	if last > 0 {
		env += fmt.Sprintf(`, LAST: "%d"`, last)
	}
	if d.options.Pad > 0 {
		env += fmt.Sprintf(`, PAD: "%d"`, d.options.Pad)
	}
	return fmt.Sprintf(`image: %q, env: {%s}, mounts: "/told": host: %q, restart: {min: "0s", max: "5s"}, stop: timeout: "2s"`,
		d.World.Sender(d.t), env, d.toldDir())
}

func (d *Device) definition() string { return "sites/lab/" + d.Name + "/device.cue" }

// Deploy commits these modules, the body of each by its name, and tells the agent
// to look. It returns the commit. A definition that does not render is committed
// as it is: the agent is to refuse it.
func (d *Device) Deploy(modules map[string]string) string {
	d.t.Helper()
	return d.DeployOnTrial(modules, d.options.Gate)
}

// DeployOnTrial is Deploy with another gate than the device's.
func (d *Device) DeployOnTrial(modules map[string]string, gate string) string {
	d.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "package fleet\n\ndevice: #device & {\n\tname: %q\n\tgate: %q\n\tdeadline: \"20s\"\n", d.Name, gate)
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		fmt.Fprintf(&b, "\tmodules: %q: {%s}\n", name, modules[name])
	}
	b.WriteString("}\n" + d.linked(modules))
	d.head = d.Git.SignedCommit(map[string]string{d.definition(): b.String()})
	c := commit{map[string]string{}, map[string]schema.Image{}, map[string]bool{}}
	if desired, err := schema.Load(d.t.Context(), os.DirFS(d.Git.Dir), d.Name); err == nil {
		for _, m := range desired.Modules {
			c.hashes[m.Name], c.images[m.Name], c.crashes[m.Name] = m.Hash(), m.Image, m.Env["CRASH"] != ""
		}
	}
	d.commits[d.head] = c
	d.Kick()
	return d.head
}

// Kick tells the agent to look at the fleet repository now, if it hears.
func (d *Device) Kick() { _, _ = d.call("reconcile", `{"by":"fault"}`) }

// Status is the agent's report.
func (d *Device) Status() (schema.Report, error) {
	var report schema.Report
	answer, err := d.call("status", "{}")
	if err == nil {
		err = json.Unmarshal(answer, &report)
	}
	return report, err
}

// Reported is what the device's twin says, which outlives the agent, and is what the
// hub gets.
func (d *Device) Reported() (schema.Report, error) {
	var report schema.Report
	var document twin.Document
	answer, err := d.request("twin.get", "{}")
	if err == nil {
		err = json.Unmarshal(answer, &document)
	}
	if err == nil {
		answer, err = json.Marshal(document.Properties.Reported.Values)
	}
	if err == nil {
		err = json.Unmarshal(answer, &report)
	}
	return report, err
}

// Call calls a direct method of the device, as a person does.
func (d *Device) Call(method, body string) ([]byte, error) { return d.call(method, body) }

func (d *Device) call(method, body string) ([]byte, error) { return d.request("rpc."+method, body) }

// request asks the agent, as a person does.
func (d *Device) request(subject, body string) ([]byte, error) {
	if d.Machine == nil || d.Machine.isOff() {
		return nil, fmt.Errorf("%s: the device is off", subject)
	}
	if d.conn == nil || d.conn.IsClosed() {
		if err := d.dial(); err != nil {
			return nil, err
		}
	}
	msg, err := d.conn.Request(twin.Prefix(d.Name, "")+"."+subject, []byte(body), 5*time.Second)
	if err != nil {
		d.hangUp() // the next call begins anew
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	var refused struct{ Error *twin.Error }
	if json.Unmarshal(msg.Data, &refused) == nil && refused.Error != nil {
		return nil, fmt.Errorf("%s: %w", subject, refused.Error)
	}
	return msg.Data, nil
}

// dial connects to the leaf, inside the machine.
func (d *Device) dial() error {
	content, err := os.ReadFile(filepath.Join(d.RunDir, "agent.json"))
	if err != nil {
		return err
	}
	var agent struct{ URL, OperatorSeedFile string }
	if err := json.Unmarshal(content, &agent); err != nil {
		return err
	}
	key, err := nats.NkeyOptionFromSeed(agent.OperatorSeedFile)
	if err != nil {
		return err
	}
	d.conn, err = nats.Connect(agent.URL, key, nats.SetCustomDialer(d.Machine), nats.NoReconnect(),
		nats.Timeout(5*time.Second), nats.CustomInboxPrefix(twin.Inbox(d.Name, "")))
	return err
}

func (d *Device) hangUp() {
	if d.conn != nil {
		d.conn.Close()
		d.conn = nil
	}
}
