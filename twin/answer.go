package twin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Answer is what P.twin.reported and P.out.<name> answer: {"version": 7} when
// the update is on disk, {} when the message is, {"error": {…}} when nothing
// was changed or stored.
type Answer struct {
	Version uint64 `json:"version,omitempty"` // of the section that was asked to change, as it now stands
	Error   *Error `json:"error,omitempty"`
}

// What Error.Code may say. The numbers are HTTP's, as in Azure IoT Hub.
const (
	CodeMalformed    = 400 // not JSON, not an object, or a key that is not allowed
	CodeRefused      = 403 // not the caller's to do
	CodeNotFound     = 404 // no such twin, module or method
	CodePrecondition = 412 // the version asked for is not the present one
	CodeTooLarge     = 413 // beyond a limit of size or depth
	CodeSchema       = 422 // the module's definition does not allow the value
	CodeFailed       = 500 // the answerer could not do it
	CodeBusy         = 429 // too much at a time, or not ready yet; try again
	CodeOffline      = 503 // whoever should answer is not connected: the hub, the device or the module
	CodeTimeout      = 504 // it did not answer in time
	CodeNoSpace      = 507 // no room on the device's disk, or in the bound of the queue
)

// Error is a refusal, as Go error and as JSON on the wire. Whoever gets one
// knows that nothing was changed.
type Error struct {
	Code    int    `json:"code"`           // one of the Code constants
	Path    string `json:"path,omitempty"` // the member that is the reason, "a.b.c"; empty for the whole
	Message string `json:"message"`        // for people
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Message)
	fmt.Fprintf(&b, " (%d)", e.Code)
	return b.String()
}

// below puts the error under one more member.
func (e *Error) below(key string) *Error {
	path := clip(key)
	if e.Path != "" {
		path += "." + e.Path
	}
	return &Error{Code: e.Code, Path: path, Message: e.Message}
}

// asError is the *Error in err, or one that says the same with CodeFailed.
func asError(err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Code: CodeFailed, Message: err.Error()}
	}
	return e
}

// ReadAnswer reads an answer from the wire. The error is the answer's own
// *Error, or says that it is no answer.
func ReadAnswer(data []byte) (Answer, error) {
	var a Answer
	if len(data) > MaxDocument {
		return Answer{}, fmt.Errorf("read answer: %d bytes are more than an answer has", len(data))
	}
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&a); err != nil {
		return Answer{}, fmt.Errorf("read answer: %w", err)
	}
	if a.Error != nil {
		return a, a.Error
	}
	return a, nil
}
