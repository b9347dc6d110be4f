package leaf

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/schema"
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
	if gone, ok := s.get("gone"); !ok || !gone.Document.Removed || gone.Document.Properties.Desired.Version != 7 {
		t.Errorf("%+v", gone)
	}
	if sensor, ok := s.get("sensor"); !ok || sensor.Document.Removed || sensor.Reported != "a?: int" || sensor.Base != nil || sensor.Countdown != (countdown{}) {
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
	if _, _, err := s.declare(d); err != nil {
		t.Fatal(err)
	}
	s.must(t, s.commit(func(get func(string) (entry, bool)) ([]entry, error) {
		e, _ := get("sensor")
		m := machine{boot: "b"}
		e, err := e.overridden(by("ann", map[string]any{"big": nil}), m.clock().start(time.Hour), time.Now())
		return []entry{e}, err
	})[0])
	s.must(t, s.close())
	again := openTestStore(t, dir)
	if !same(again.entries, s.entries) || len(again.warnings) > 0 {
		t.Errorf("read back %+v, %v", again.entries["sensor"], again.warnings)
	}
	e := again.entries["sensor"]
	if e.Base["big"] != json.Number("9007199254740993") || e.Countdown.Left != 58*time.Minute || e.Signal != "SIGHUP" {
		t.Errorf("%+v", e)
	}
}
