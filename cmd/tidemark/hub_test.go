package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/tidemark-edge/tidemark/internal/harness"
	"github.com/tidemark-edge/tidemark/twin"
)

// TestRealHub plays what a person does with a device and its hub, while that is there,
// away, and there again; what they are told where they are mistaken; and that no secret
// goes anywhere meanwhile.
func TestRealHub(t *testing.T) {
	s := newSite(t)
	s.part("twins", (*site).seesTwins)
	s.part("messages", (*site).readsMessages)
	s.part("calls", (*site).callsMethods)
	s.part("mistakes", (*site).isToldMistakes)
	s.part("secrets", (*site).keepsSecrets)
	s.part("outage", (*site).followsThroughAnOutage)
}

func (s *site) seesTwins() {
	watch := s.follows("twin", "watch", "d1/sensor")
	watch.says(`/devices/d1/modules/sensor desired 1 {"interval":"200ms"}`)
	if out, said, code := s.types("twin", "set", "sensor", "interval=100ms", "--for", "1h", "--reason", "<look>", "--by", "anna"); code != exitOK {
		s.Fatalf("%d: %s%s", code, out, said)
	}
	watch.says(`desired 2 (set by anna) {"interval":"100ms"}`)
	harness.Eventually(s, func() error {
		if out, said, _ := s.asks("twin", "export", "d1"); out != "" {
			return nil
		} else {
			return fmt.Errorf("the hub knows of no override: %s", said)
		}
	})
	out, _, code := s.asks("twin", "get", "d1/sensor")
	if code != exitOK || !strings.Contains(out, "drift: desired of sensor, set by anna") {
		s.Errorf("%d: %s", code, out)
	}
	if out, said, code := s.types("twin", "unset", "sensor"); code != exitOK {
		s.Fatalf("%d: %s%s", code, out, said)
	}
	watch.says(`desired 3 {"interval":"200ms"}`)
	if code := watch.interrupt(); code != exitOK {
		s.Errorf("interrupted, watch exits with %d", code)
	}
	all := s.follows("twin", "watch", "-o", "json")
	all.says(`"device":"d1","module":"fixed"`)
	all.interrupt()
	for line := range strings.Lines(all.text()) {
		var doc twin.Document
		if err := json.Unmarshal([]byte(line), &doc); err != nil || doc.Device != "d1" {
			s.Errorf("%v: a line of JSON is %s", err, line)
		}
	}
}

func (s *site) readsMessages() {
	var lines []string
	harness.Eventually(s, func() error {
		out, said, code := s.asks("messages", "--device", "d1", "--module", "sensor", "--name", "reading", "--lane", "all")
		if lines = strings.Split(strings.TrimSpace(out), "\n"); code != exitOK || said != "" || len(lines) < 5 {
			return fmt.Errorf("%d: %d lines, %s", code, len(lines), said)
		}
		return nil
	})
	want := regexp.MustCompile(`^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d d1 all:(\d+) sensor/reading \{"n":\d+,"temperature":[0-9.]+\}$`)
	for _, line := range lines {
		if !want.MatchString(line) {
			s.Errorf("a line is %q", line)
		}
	}
	out, _, code := s.asks("messages", "-o", "json")
	var first, second storedMessage
	decoder := json.NewDecoder(strings.NewReader(out))
	if err := decoder.Decode(&first); err != nil || code != exitOK || first.Device != "d1" || first.Lane != "all" || first.Seq != 1 || string(first.Body) == "" {
		s.Fatalf("%d, %v: %+v", code, err, first)
	}
	if err := decoder.Decode(&second); err != nil || second.Seq != 2 || second.At <= first.At {
		s.Fatalf("%v: %+v", err, second)
	}
	if out, _, _ = s.asks("messages", "-o", "json", "--from", fmt.Sprint(second.At)); !strings.HasPrefix(out, fmt.Sprintf(`{"at":%d,`, second.At)) {
		s.Errorf("from %d: %.200s", second.At, out)
	}
	if out, said, code := s.asks("audit", "d1"); code != exitOK || !regexp.MustCompile(`(?m)^all +\d+ +0 +0 +0$`).MatchString(out) {
		s.Errorf("%d: %s%s", code, out, said)
	}
}

func (s *site) callsMethods() {
	if out, said, code := s.asks("call", "d1/status"); code != exitOK || !strings.Contains(out, `"phase":"healthy"`) {
		s.Errorf("%d: %s%s", code, out, said)
	}
	if out, said, code := s.asks("call", "d1/suspend", `{"by": "anna", "reason": "visit"}`, "-o", "json"); code != exitOK || !strings.Contains(out, `"by": "hub:anna"`) {
		s.Errorf("%d: %s%s", code, out, said)
	}
	if out, said, code := s.asks("call", "d1/resume", `{"by": "anna"}`); code != exitOK {
		s.Errorf("%d: %s%s", code, out, said)
	}
	// The sample module has no method: it is there, and nobody answers.
	if out, said, code := s.asks("call", "d1/sensor/health"); code != exitFailure || !strings.Contains(said, "call health of /devices/d1/modules/sensor: the module is not connected, or has no such method") {
		s.Errorf("%d: %s%s", code, out, said)
	}
}

// isToldMistakes holds each error to what went wrong, where, and what to do about it.
func (s *site) isToldMistakes() {
	operator := filepath.Join(s.hubState, "operator.nk")
	device, here := s.path("state/identity.nk"), filepath.Join(s.runDir, "operator.nk")
	for _, c := range []struct {
		name string
		line string // PEOPLE, LEAFS, OPERATOR, DEVICE and HERE stand for addresses and files
		code int
		want []string // in what is said
	}{
		{"nobody listens", "messages --hub 127.0.0.1:1 --creds OPERATOR", 1, []string{"connect to the hub at 127.0.0.1:1", `does the hub run, and does its configuration say listen: "127.0.0.1:1"?`}},
		{"nobody listens, audit", "audit d1 --hub 127.0.0.1:1 --creds OPERATOR", 1, []string{"does the hub run"}},
		{"nobody listens, watch", "twin watch --hub 127.0.0.1:1 --creds OPERATOR", 1, []string{"does the hub run"}},
		{"nobody listens, call", "call d1/status --hub 127.0.0.1:1 --creds OPERATOR", 1, []string{"does the hub run"}},
		{"address of devices", "messages --hub LEAFS --creds OPERATOR", 1, []string{"connect to the hub at LEAFS", "not that for devices"}},
		{"TLS where there is none", "messages --hub tls://PEOPLE --creds OPERATOR", 1, []string{"tls://"}},
		{"no key", "messages --hub PEOPLE", 2, []string{"--hub needs --creds", "operator.nk"}},
		{"no such file", "audit d1 --hub PEOPLE --creds /nonexistent/key", 1, []string{"--creds /nonexistent/key", "no such file", "operator.nk"}},
		{"no key in it", "audit d1 --hub PEOPLE --creds CONFIG", 1, []string{"CONFIG", "no seed"}},
		{"the agent's key", "audit d1 --hub PEOPLE --creds HERE", 1, []string{"Authorization Violation", "is HERE operator.nk of this very hub"}},
		{"the device's key, messages", "messages --hub PEOPLE --creds DEVICE", 1, []string{"refuses this to the key in DEVICE", "operator.nk"}},
		{"the device's key, audit", "audit d1 --hub PEOPLE --creds DEVICE", 1, []string{"refuses this to the key in DEVICE"}},
		{"the device's key, watch", "twin watch --hub PEOPLE --creds DEVICE", 1, []string{"refuses this to the key in DEVICE"}},
		{"the device's key, call", "call d1/status --hub PEOPLE --creds DEVICE", 1, []string{"refuses this to the key in DEVICE"}},
		{"unknown device, messages", "messages --device d9 --hub PEOPLE --creds OPERATOR", 1, []string{"never heard of a device d9", "tidemark twin list"}},
		{"unknown device, audit", "audit d9 --hub PEOPLE --creds OPERATOR", 1, []string{"never heard of a device d9", "tidemark twin list"}},
		{"unknown device, twin", "twin get d9 --hub PEOPLE --creds OPERATOR", 1, []string{"twin /devices/d9: the hub has no such twin", "tidemark twin list"}},
		{"unknown device, export", "twin export d9 --hub PEOPLE --creds OPERATOR", 1, []string{"twin /devices/d9: the hub has no such twin", "tidemark twin list"}},
		{"unknown device, call", "call d9/status --hub PEOPLE --creds OPERATOR", 1, []string{"call status of /devices/d9", "never heard of a device d9"}},
		{"unknown module, call", "call d1/nosuch/health --hub PEOPLE --creds OPERATOR", 1, []string{"call health of /devices/d1/modules/nosuch: no such module is declared"}},
		{"unknown method, call", "call d1/nosuch --hub PEOPLE --creds OPERATOR", 1, []string{"call nosuch of /devices/d1", "does it have the method?"}},
		{"no JSON, call", "call d1/suspend x --hub PEOPLE --creds OPERATOR", 1, []string{"call suspend of /devices/d1: the body is not what the method takes"}},
		{"unknown lane", "messages --lane nosuch --hub PEOPLE --creds OPERATOR", 0, []string{"the hub holds no such message", "tidemark audit DEVICE"}},
		{"a lane that cannot be", "messages --lane A --hub PEOPLE --creds OPERATOR", 2, []string{`--lane: name "A"`}},
		{"an override from afar", "twin set sensor a=1 --for 1h --reason x --hub PEOPLE --creds OPERATOR", 2, []string{"on its device", "tidemark call DEVICE/twin-set"}},
		{"an override from afar ended", "twin unset sensor --hub PEOPLE --creds OPERATOR", 2, []string{"on its device", "tidemark call DEVICE/twin-unset"}},
		{"a fixed twin", "twin set fixed interval=1s --for 1h --reason x", 1, []string{"set desired of fixed: the definition forbids it (twin: fixed: true)"}},
		{"no module, set", "twin set nosuch interval=1s --for 1h --reason x", 1, []string{"set desired of nosuch: no such module is declared"}},
		{"no override", "twin unset sensor", 1, []string{"unset desired of sensor: there is no override"}},
		{"too long", "twin set sensor interval=1s --for 100000h --reason x", 1, []string{"set desired of sensor: for: 100000h0m0s", "at most 87600h"}},
		{"a key that cannot be", "twin set sensor $a=1 --for 1h --reason x", 1, []string{"set desired of sensor: patch.$a: key holds '$'"}},
		{"no module, call", "call nosuch/health", 1, []string{"no such module is declared", "tidemark twin list"}},
		{"no method, call", "call sensor/health", 1, []string{"nobody answers it", "tidemark identity list"}},
		{"no method of the device", "call nosuch", 1, []string{"a device has no such method", "tidemark call --help"}},
		{"no module, rotate", "identity rotate nosuch", 1, []string{"rotate identity of nosuch: no such module is declared"}},
		{"another device", "twin get d2/sensor", 1, []string{"this is d1", "--hub"}},
		{"no such repository", "twin export sensor --repo /nonexistent", 1, nil},
	} {
		s.Run(c.name, func(t *testing.T) {
			stand := strings.NewReplacer("PEOPLE", s.people, "LEAFS", s.leafs, "OPERATOR", operator, "key in DEVICE", "key in "+device, "--creds DEVICE", "--creds "+device, "HERE", here, "CONFIG", s.path("agent.cue"))
			_, said, code := s.types(strings.Fields(stand.Replace(c.line))...)
			if code != c.code {
				t.Errorf("exits with %d, want %d", code, c.code)
			}
			for _, want := range c.want {
				if want = stand.Replace(want); !strings.Contains(said, want) {
					t.Errorf("says %q, want %q in it", said, want)
				}
			}
			if strings.Contains(said, "no responders") || strings.Contains(said, "deadline exceeded") {
				t.Errorf("says %q: in a library's words", said)
			}
		})
	}
}

// followsThroughAnOutage ends the hub under who follows messages and twins: they hear
// of it, and it goes on.
func (s *site) followsThroughAnOutage() {
	messages, twins := s.follows("messages", "-f", "--device", "d1"), s.follows("twin", "watch", "d1/sensor")
	messages.says("sensor/reading")
	twins.says("reported")
	s.hub.Stop(syscall.SIGTERM)
	messages.says("the hub is away: waiting for it")
	twins.says("the hub is away: waiting for it")
	s.startHub()
	messages.says("the hub is back")
	twins.says("the hub is back")
	more := func(f *follower, what string) {
		before := strings.Count(f.text(), what)
		harness.Eventually(s, func() error {
			if strings.Count(f.text(), what) < before+5 {
				return fmt.Errorf("%v does not go on:\n%s", f.cmd.Args[1:], tail(f.text()))
			}
			return nil
		})
		if code := f.interrupt(); code != exitOK {
			s.Errorf("interrupted, %v exits with %d", f.cmd.Args[1:], code)
		}
	}
	more(messages, "sensor/reading")
	more(twins, "reported")
	// Each message once: what was shown before the outage does not come again.
	seen := map[string]bool{}
	for line := range strings.Lines(messages.text()) {
		if seen[line] {
			s.Errorf("twice: %s", line)
		}
		seen[line] = true
	}
	if out, said, code := s.asks("audit", "d1"); code != exitOK {
		s.Errorf("%d: %s%s", code, out, said)
	}
}

func tail(text string) string { return text[max(0, len(text)-2000):] }
