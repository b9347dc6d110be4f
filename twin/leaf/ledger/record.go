package ledger

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/tidemark-edge/tidemark/schema"
	"github.com/tidemark-edge/tidemark/twin"
)

// A record of the journal is, integers little-endian:
//
//	4 bytes  recordMagic, so that records can be found behind damage
//	4 bytes  n, the length of what follows the checksum
//	4 bytes  CRC-32C of n and of what follows the checksum
//	1 byte   flags: 1 is "has the schema of reported", which else is as in the record before
//	1 byte   length of the module's name, 0 for the device
//	         the module's name
//	         entryJSON, to the end of the n bytes
//
// The last record of a name is what holds. JSON has no zero byte, so zero bytes
// in a record at the end of the file are a write that was cut off.
const (
	recordHeader = 12
	recordFixed  = 8 + 8 + 1 + 1 // of the body, before the name
	flagSchema   = 1
	// minRecord is less than any record has, so that bytes lost bound the records,
	// and so the versions, that were lost with them.
	minRecord = 128
	// maxRecord holds a document, what Git says below an override, and a schema,
	// whose JSON can be six times as long as its source.
	maxRecord = twin.MaxDocument + 2*twin.MaxSection + 8*schema.MaxReportedSource
)

var (
	recordMagic = []byte("\xf1TMr")
	castagnoli  = crc32.MakeTable(crc32.Castagnoli)
)

// entryJSON is an Entry in a record. Records of former agents have Removed here, and
// nothing of overrides.
type entryJSON struct {
	Removed   bool            `json:"removed"`
	Reported  string          `json:"reportedSchema"`
	Signal    string          `json:"signal"`
	Fixed     bool            `json:"fixed"`
	Base      *twin.Section   `json:"base"`
	Countdown Countdown       `json:"countdown"`
	Document  json.RawMessage `json:"document"`
}

// appendMembers appends what a record's JSON has before its document.
func (e Entry) appendMembers(b []byte, withSchema bool) ([]byte, error) {
	members := []struct {
		name  string
		value any
		says  bool
	}{
		{"reportedSchema", e.Reported, withSchema},
		{"signal", e.Signal, e.Signal != ""},
		{"fixed", e.Fixed, e.Fixed},
		{"base", twin.Section{Values: e.Base}, e.Base != nil},
		{"countdown", e.Countdown, e.Countdown != Countdown{}},
	}
	for _, m := range members {
		if !m.says {
			continue
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return b, err
		}
		b = append(append(append(append(b, '"'), m.name...), `":`...), value...)
		b = append(b, ',')
	}
	return b, nil
}

// marks are what every record says of the whole store, so that any of them that
// outlives damage keeps versions from going back.
type marks struct {
	high  uint64 // no version of any twin was ever above it
	floor uint64 // a twin that is not known starts with it
}

// appendRecord appends the record of e. withSchema is false where the record
// before has the same Reported.
func appendRecord(b []byte, e Entry, withSchema bool, m marks) ([]byte, error) {
	start := len(b)
	b = append(b, recordMagic...)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, m.high)
	b = binary.LittleEndian.AppendUint64(b, m.floor)
	flags := byte(0)
	if withSchema {
		flags = flagSchema
	}
	b = append(b, flags, byte(len(e.Document.Module)))
	b = append(b, e.Document.Module...)
	b, err := e.appendMembers(append(b, '{'), withSchema)
	if err != nil {
		return b[:start], err
	}
	document := e.Document.Encode()
	b = append(append(append(b, `"document":`...), document...), '}')
	n := len(b) - start - recordHeader
	if len(document) > twin.MaxDocument || n > maxRecord {
		return b[:start], &twin.Error{Code: twin.CodeTooLarge, Message: fmt.Sprintf("twin would have %d bytes with its metadata, and may have %d", len(document), twin.MaxDocument)}
	}
	binary.LittleEndian.PutUint32(b[start+4:], uint32(n))
	binary.LittleEndian.PutUint32(b[start+8:], checksum(b[start+4:start+8], b[start+recordHeader:]))
	return b, nil
}

func checksum(length, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(length, castagnoli), castagnoli, body)
}

// recordLength returns the n of a record's header.
func recordLength(header []byte) (n int, ok bool) {
	if !bytes.Equal(header[:4], recordMagic) {
		return 0, false
	}
	length := binary.LittleEndian.Uint32(header[4:])
	return int(length), length <= maxRecord
}

// record is a record that was read. Its payload is entryJSON.
type record struct {
	marks
	module  string
	schema  bool // the payload has the schema of reported
	payload []byte
}

// splitRecord checks a record's body against its header and takes it apart.
func splitRecord(header, body []byte) (r record, ok bool) {
	if checksum(header[4:8], body) != binary.LittleEndian.Uint32(header[8:]) || len(body) < recordFixed {
		return record{}, false
	}
	name := int(body[recordFixed-1])
	if recordFixed+name > len(body) {
		return record{}, false
	}
	return record{
		marks:   marks{binary.LittleEndian.Uint64(body), binary.LittleEndian.Uint64(body[8:])},
		module:  string(body[recordFixed : recordFixed+name]),
		schema:  body[recordFixed-2]&flagSchema != 0,
		payload: body[recordFixed+name:],
	}, true
}

// entry reads the payload.
func (r record) entry() (Entry, error) {
	var j entryJSON
	if err := json.Unmarshal(r.payload, &j); err != nil {
		return Entry{}, err
	}
	d, err := twin.ReadDocument(j.Document)
	if err != nil {
		return Entry{}, err
	}
	if d.Module != r.module {
		return Entry{}, errors.New("it is the twin of another module")
	}
	d.Removed = d.Removed || j.Removed
	e := Entry{Reported: j.Reported, Signal: j.Signal, Fixed: j.Fixed, Document: d}
	if d.Properties.Desired.Override != nil {
		e.Base, e.Countdown = map[string]any{}, j.Countdown
		if j.Base != nil {
			e.Base = j.Base.Values
		}
	}
	return e, nil
}
