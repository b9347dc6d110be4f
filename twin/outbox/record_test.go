package outbox

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/tidemark-edge/tidemark/twin"
)

func TestReserved(t *testing.T) {
	for key, want := range map[string]bool{
		"Nats-Msg-Id": true, "nats-msg-id": true, "NATS-X": true, "Tidemark-Seq": true, "tIDEMARK-x": true,
		"Content-Type": false, "Natsy": false, "X-Nats-A": false, "": false,
	} {
		if reserved(key) != want {
			t.Errorf("%q: %v", key, !want)
		}
	}
}

func FuzzReadIntake(f *testing.F) {
	for _, s := range []string{"devices.a.modules.m.out.n", "devices.a.modules.m.out.a.b", "devices.a.modules..out.", "devices.b.modules.m.out.n", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		module, name, err := readIntake("a", subject)
		if err == nil && twin.Prefix("a", module)+".out."+name != subject {
			t.Errorf("%q is read as %q %q", subject, module, name)
		}
	})
}

func FuzzReadRecord(f *testing.F) {
	f.Add("outbox.m.n", "123", "boot")
	f.Add("outbox.m", "-1", "")
	f.Add("other.m.n", "99999999999999999999", "\x00")
	f.Fuzz(func(t *testing.T, subject, up, boot string) {
		r, err := readRecord(subject, nats.Header{headerUp: {up}, headerBoot: {boot}})
		if err == nil && (stored+"."+r.module+"."+r.name != subject || r.stored.up < 0 || strings.ContainsAny(r.module+r.name, ".*> ")) {
			t.Errorf("%q %q: %+v", subject, up, r)
		}
	})
}

func FuzzReadAck(f *testing.F) {
	f.Add([]byte(`{"stream":"OUTBOX","seq":5,"batch":"x","count":2}`))
	f.Add([]byte(`{"error":{"code":400,"err_code":10071,"description":"x"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if seq, err := readAck(data, 2); err == nil && seq < 2 {
			t.Errorf("%s: %d", data, seq)
		}
	})
}
