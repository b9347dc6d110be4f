package challenge

import (
	"encoding/base64"
	"testing"

	"github.com/nats-io/nkeys"
)

func TestOnlyTheSeedAnswers(t *testing.T) {
	key, other := newKey(t), newKey(t)
	nonce := []byte("nonce")
	sign := func(k nkeys.KeyPair, data []byte) []byte {
		sig, err := k.Sign(data)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, std := base64.RawURLEncoding.EncodeToString, base64.StdEncoding.EncodeToString
	for name, tc := range map[string]struct {
		public, signature string
		nonce             []byte
		want              bool
	}{
		"answered":            {public, raw(sign(key, nonce)), nonce, true},
		"standard base64":     {public, std(sign(key, nonce)), nonce, true},
		"another's signature": {public, raw(sign(other, nonce)), nonce, false},
		"another nonce":       {public, raw(sign(key, []byte("old"))), nonce, false},
		"no nonce":            {public, raw(sign(key, nil)), nil, false},
		"no signature":        {public, "", nonce, false},
		"no base64":           {public, "!", nonce, false},
		"signature cut short": {public, raw(sign(key, nonce)[:63]), nonce, false},
		"no key":              {"", raw(sign(key, nonce)), nonce, false},
		"what is no key":      {"UNKNOWN", raw(sign(key, nonce)), nonce, false},
	} {
		if got := Answered(tc.public, tc.signature, tc.nonce); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

func newKey(t *testing.T) nkeys.KeyPair {
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	return key
}
