// Package challenge is the one check by which the leaf and the hub let somebody
// in: that who names a public NKey has its seed.
package challenge

import (
	"encoding/base64"

	"github.com/nats-io/nkeys"
)

// Answered reports whether signature, in base64 as NATS clients send it, is that
// of nonce by the seed of the public key. An empty nonce proves nothing.
func Answered(public, signature string, nonce []byte) bool {
	key, err := nkeys.FromPublicKey(public)
	if err != nil {
		return false
	}
	sig, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		if sig, err = base64.StdEncoding.DecodeString(signature); err != nil {
			return false
		}
	}
	return len(nonce) > 0 && key.Verify(nonce, sig) == nil
}
