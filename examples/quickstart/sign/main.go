// Sign signs images the way "cosign sign" of cosign v3 does with a key and no
// transparency log. The quickstart uses it where no cosign is installed; the
// keys are cosign's, so either tool can go on where the other stopped.
//
//	sign generate-key-pair [--output-key-prefix cosign]
//	sign --key cosign.key IMAGE@sha256:… …
//
// The key file is encrypted with $COSIGN_PASSWORD, which is empty where unset.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sign:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 && args[0] == "generate-key-pair" {
		flags := flag.NewFlagSet("sign generate-key-pair", flag.ContinueOnError)
		prefix := flags.String("output-key-prefix", "cosign", "write PREFIX.key and PREFIX.pub")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return generate(*prefix)
	}
	flags := flag.NewFlagSet("sign", flag.ContinueOnError)
	keyFile := flags.String("key", "cosign.key", "private key, as generate-key-pair or cosign wrote it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("name an image: sign --key cosign.key registry.example.com/app@sha256:…")
	}
	key, err := load(*keyFile)
	if err != nil {
		return err
	}
	for _, image := range flags.Args() {
		if err := sign(key, image); err != nil {
			return fmt.Errorf("%s: %w", image, err)
		}
		fmt.Println("signed", image)
	}
	return nil
}

// generate writes a new key pair and overwrites nothing.
func generate(prefix string) error {
	private, public, err := cryptoutils.GeneratePEMEncodedECDSAKeyPair(elliptic.P256(), password)
	if err != nil {
		return err
	}
	if err := create(prefix+".key", private, 0o600); err != nil {
		return err
	}
	if err := create(prefix+".pub", public, 0o644); err != nil {
		return err
	}
	fmt.Printf("wrote %s.key, which signs, and %[1]s.pub, which devices trust\n", prefix)
	return nil
}

func create(file string, content []byte, mode os.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

func load(file string) (*ecdsa.PrivateKey, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(content, password)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", file, err)
	}
	key, ok := private.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key %s: a %T, want an ECDSA key", file, private)
	}
	return key, nil
}

func password(bool) ([]byte, error) { return []byte(os.Getenv("COSIGN_PASSWORD")), nil }
