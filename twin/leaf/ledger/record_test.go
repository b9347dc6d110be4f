package ledger

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// Agents before this one wrote nothing of overrides, and said removed elsewhere.
func TestJournalOfAFormerAgent(t *testing.T) {
	content := []byte(journalMagic)
	for module, payload := range map[string]string{
		"gone":   `{"removed":true,"document":{"device":"d1","module":"gone","properties":{"desired":{"$metadata":{},"$version":7},"reported":{"$metadata":{},"$version":8}}}}`,
		"sensor": `{"reportedSchema":"a?: int","document":{"device":"d1","module":"sensor","properties":{"desired":{"x":1,"$metadata":{},"$version":3},"reported":{"$metadata":{},"$version":4}}}}`,
	} {
		body := binary.LittleEndian.AppendUint64(nil, 8)
		body = append(binary.LittleEndian.AppendUint64(body, 0), flagSchema, byte(len(module)))
		body = append(append(body, module...), payload...)
		header := binary.LittleEndian.AppendUint32(bytes.Clone(recordMagic), uint32(len(body)))
		header = binary.LittleEndian.AppendUint32(header, checksum(header[4:8], body))
		content = append(append(content, header...), body...)
	}
	s := reopen(t, content)
	if gone, ok := s.Get("gone"); !ok || !gone.Document.Removed || gone.Document.Properties.Desired.Version != 7 {
		t.Errorf("%+v", gone)
	}
	if sensor, ok := s.Get("sensor"); !ok || sensor.Document.Removed || sensor.Reported != "a?: int" || sensor.Base != nil || sensor.Countdown != (Countdown{}) {
		t.Errorf("%+v", sensor)
	}
	if len(s.warnings) > 0 {
		t.Error(s.warnings)
	}
}

// What a record says of an override is what is read back.
func TestRecordOfAnOverride(t *testing.T) {
	dir := t.TempDir()
	s := openTestStore(t, dir)
	d := declared("sensor")
	d.Modules[0].Twin = schema.TwinSpec{Desired: map[string]any{"big": json.Number("9007199254740993"), "text": "<&>\u2028"}, Signal: "SIGHUP", Reported: "a?: int"}
	if _, _, err := s.Declare(d, time.Now()); err != nil {
		t.Fatal(err)
	}
	clock := Clock{Boot: "b", Uptime: func() time.Duration { return 0 }}
	o := twin.Override{Patch: map[string]any{"big": nil}, By: "ann", Reason: "too much"}
	_, _, err := s.Override("sensor", o, clock.Start(time.Hour), time.Now())
	s.must(t, err)
	s.must(t, s.Close())
	again := openTestStore(t, dir)
	if !same(again.entries, s.entries) || len(again.warnings) > 0 {
		t.Errorf("read back %+v, %v", again.entries["sensor"], again.warnings)
	}
	e := again.entries["sensor"]
	if e.Base["big"] != json.Number("9007199254740993") || e.Countdown.Left != 58*time.Minute || e.Signal != "SIGHUP" {
		t.Errorf("%+v", e)
	}
}
