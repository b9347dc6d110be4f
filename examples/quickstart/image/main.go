// Image turns a static program into an OCI image of one layer and pushes it:
//
//	image PROGRAM REGISTRY/REPOSITORY
//
// It prints the image by digest, as a definition has to name it.
package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: image PROGRAM REGISTRY/REPOSITORY")
	}
	image, err := build(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	repository, err := name.NewRepository(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		log.Fatal(err)
	}
	ref := repository.Digest(digest.String())
	if err := remote.Write(ref, image); err != nil {
		log.Fatal(err)
	}
	fmt.Println(ref)
}

// build makes an image whose only file is the program, run as user 65532.
func build(program string) (v1.Image, error) {
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "main", Mode: 0o755, Size: int64(len(content))}); err != nil {
		return nil, err
	}
	if _, err := w.Write(content); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	})
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: diffIDs(image)},
		Config: v1.Config{Entrypoint: []string{"/main"}, User: "65532:65532"},
	})
}

func diffIDs(image v1.Image) []v1.Hash {
	file, err := image.ConfigFile()
	if err != nil {
		return nil
	}
	return file.RootFS.DiffIDs
}
