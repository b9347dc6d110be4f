package durable

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// envelope is a sealed value: what it says, and what proves that it is whole.
type envelope struct {
	Version int             `json:"version"`
	SHA256  string          `json:"sha256"` // of Content's bytes, hexadecimal
	Content json.RawMessage `json:"content"`
}

// SealBytes is what a seal takes beside the JSON of what is sealed, at most.
const SealBytes = 256

// Seal writes v as JSON with the version of its form and a checksum.
func Seal(version int, v any) ([]byte, error) {
	content, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(content)
	return json.Marshal(envelope{version, hex.EncodeToString(sum[:]), content})
}

// Unseal returns the JSON that Seal sealed. It is an error when that has another
// version, or is not what was sealed.
func Unseal(version int, data []byte) (json.RawMessage, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, err
	}
	if e.Version != version {
		return nil, fmt.Errorf("version %d, want %d", e.Version, version)
	}
	if sum := sha256.Sum256(e.Content); hex.EncodeToString(sum[:]) != e.SHA256 {
		return nil, errors.New("checksum does not match")
	}
	return e.Content, nil
}
