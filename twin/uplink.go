package twin

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// What a device says to the hub, and what the hub answers. See FleetMoved for
// who may say it.

// UpTwin is where a device sends the newest Document of one of its twins; the
// answer is a Receipt.
func UpTwin(device string) string { return Up(device) + ".twin" }

// Headers of every message in the hub's stream. Device, epoch and sequence
// name a message for ever: whoever reads the stream twice can tell.
const (
	HeaderEpoch = "Tidemark-Epoch" // names one life of the device's outbox; sequences start over with a new one
	HeaderSeq   = "Tidemark-Seq"   // sequence in the outbox; of a Lost, the last of its range
	HeaderTime  = "Tidemark-Time"  // RFC 3339, when the device stored the message, by the device's clock, which may be wrong
)

// Standing answers a Batch: how far the hub holds the lane now, on its disk.
type Standing struct {
	Position
	Error *Error `json:"error,omitempty"` // why there is no answer; the position is then meaningless
}

// Lost tells whoever reads the hub's stream that a range of a lane does not
// come, or comes in another lane. It stands in the place of what is missing, so
// that the sequences of a lane have no hole.
type Lost struct {
	Epoch  string `json:"epoch"`
	From   uint64 `json:"from"`   // first sequence that is missing
	To     uint64 `json:"to"`     // last sequence that is missing
	Reason string `json:"reason"` // one of the Lost constants
}

// What Lost.Reason may say.
const (
	LostTTL      = "ttl"      // waited longer than its time to live
	LostBound    = "bound"    // the oldest, when the queue was full
	LostDamaged  = "damaged"  // what is on the device's disk cannot be read
	LostWiped    = "wiped"    // the queue was removed from the device's disk; To is the last that is known of
	LostSettled  = "settled"  // the hub had confirmed it and holds it no more: it was restored from an older copy
	LostDeferred = "deferred" // not lost: it comes in the lane Late
)

// Receipt answers a Document: what the hub holds of that twin now.
type Receipt struct {
	Stored   bool   `json:"stored"`                    // false: the hub holds something newer, or other under the same versions
	Desired  uint64 `json:"desiredVersion,omitempty"`  // that the hub holds
	Reported uint64 `json:"reportedVersion,omitempty"` // that the hub holds
	Error    *Error `json:"error,omitempty"`           // why the document was not looked at
}

// ReadReceipt reads a Receipt from the wire; an Error in it is the error.
func ReadReceipt(data []byte) (Receipt, error) {
	var r Receipt
	if err := readAnswer("receipt", data, &r); err != nil {
		return Receipt{}, err
	}
	if r.Error != nil {
		return Receipt{}, r.Error
	}
	return r, nil
}

// ReadStanding reads a Standing from the wire; an Error in it is the error.
func ReadStanding(data []byte) (Standing, error) {
	var s Standing
	if err := readAnswer("standing", data, &s); err != nil {
		return Standing{}, err
	}
	if s.Error != nil {
		return Standing{}, s.Error
	}
	return s, nil
}

// maxUplinkAnswer bounds what the hub may answer, in bytes.
const maxUplinkAnswer = 16 << 10

func readAnswer(what string, data []byte, into any) error {
	if len(data) > maxUplinkAnswer {
		return fmt.Errorf("read %s: %d bytes are more than it has", what, len(data))
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("read %s: %w", what, err)
	}
	if d.More() {
		return fmt.Errorf("read %s: something follows it", what)
	}
	return nil
}
