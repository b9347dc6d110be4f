package store

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tidemark-edge/tidemark/schema"
)

// shelf is a registry that has these documents, and says what it likes of them.
type shelf struct {
	documents map[digest.Digest]string
	types     map[digest.Digest]string
	asked     int
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked++
	dgst := digest.Digest(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:])
	doc, ok := s.documents[dgst]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", s.types[dgst])
	w.Header().Set("Content-Length", fmt.Sprint(len(doc)))
	w.Header().Set("Docker-Content-Digest", dgst.String())
	if r.Method == http.MethodGet {
		w.Write([]byte(doc))
	}
}

// put shelves a document and describes it.
func (s *shelf) put(mediaType string, doc any) ocispec.Descriptor {
	text, isText := doc.(string)
	if !isText {
		b, err := json.Marshal(doc)
		if err != nil {
			panic(err)
		}
		text = string(b)
	}
	dgst := digest.FromString(text)
	if s.documents == nil {
		s.documents, s.types = map[digest.Digest]string{}, map[digest.Digest]string{}
	}
	s.documents[dgst], s.types[dgst] = text, mediaType
	return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(text))}
}

const manifestType, indexType = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex

// manifest shelves an image with one layer like that.
func (s *shelf) manifest(layer ocispec.Descriptor, diffs ...digest.Digest) ocispec.Descriptor {
	config := s.put(ocispec.MediaTypeImageConfig, map[string]any{
		"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	return s.put(manifestType, map[string]any{"schemaVersion": 2, "mediaType": manifestType, "config": config, "layers": []ocispec.Descriptor{layer}})
}

// Whatever a registry gives, it is refused with what is wrong, and without end
// there is none.
func TestOddImagesAreRefused(t *testing.T) {
	diff := digest.FromString("files")
	layer := func(mediaType string, size int64) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString("layer"), Size: size}
	}
	gzip := ocispec.MediaTypeImageLayerGzip
	for name, test := range map[string]struct {
		make func(s *shelf) ocispec.Descriptor
		want string
	}{
		"an image": {func(s *shelf) ocispec.Descriptor { return s.manifest(layer(gzip, 10), diff) }, ""},
		"schema 1": {func(s *shelf) ocispec.Descriptor {
			return s.put("application/vnd.docker.distribution.manifest.v1+prettyjws", "{}")
		}, "schema 1"},
		"no image": {func(s *shelf) ocispec.Descriptor { return s.put("text/html", "<html>") }, "not an image"},
		"no JSON":  {func(s *shelf) ocispec.Descriptor { return s.put(manifestType, "{") }, "manifest"},
		"a chart": {func(s *shelf) ocispec.Descriptor {
			return s.manifest(layer("application/vnd.cncf.helm.chart.content.v1.tar+gzip", 10), diff)
		}, "cannot be unpacked"},
		"a foreign layer": {func(s *shelf) ocispec.Descriptor {
			return s.manifest(layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", 10), diff)
		}, "cannot be unpacked"},
		"erofs": {func(s *shelf) ocispec.Descriptor {
			return s.manifest(layer("application/vnd.erofs.layer.v1", 10), diff)
		}, "cannot be unpacked"},
		"no size":            {func(s *shelf) ocispec.Descriptor { return s.manifest(layer(gzip, 0), diff) }, "0 bytes"},
		"negative size":      {func(s *shelf) ocispec.Descriptor { return s.manifest(layer(gzip, -5), diff) }, "-5 bytes"},
		"more diffs":         {func(s *shelf) ocispec.Descriptor { return s.manifest(layer(gzip, 5), diff, diff) }, "1 layers and its configuration 2"},
		"a diff that is not": {func(s *shelf) ocispec.Descriptor { return s.manifest(layer(gzip, 5), "sha256:x") }, "sha256:x"},
		"large":              {func(s *shelf) ocispec.Descriptor { return s.put(manifestType, strings.Repeat(" ", maxDocument+1)) }, "bytes"},
		"a large configuration": {func(s *shelf) ocispec.Descriptor {
			config := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: diff, Size: 1 << 40}
			return s.put(manifestType, map[string]any{"config": config, "layers": []ocispec.Descriptor{layer(gzip, 5)}})
		}, "are read"},
		"another platform": {func(s *shelf) ocispec.Descriptor {
			m := s.manifest(layer(gzip, 5), diff)
			m.Platform = &ocispec.Platform{OS: "linux", Architecture: "s390x"}
			return s.put(indexType, map[string]any{"manifests": []ocispec.Descriptor{m}})
		}, "platform"},
		"indexes without end": {func(s *shelf) ocispec.Descriptor {
			d := s.manifest(layer(gzip, 5), diff)
			for range 3 * maxDocuments {
				d = s.put(indexType, map[string]any{"manifests": []ocispec.Descriptor{d}})
			}
			return d
		}, "documents"},
	} {
		t.Run(name, func(t *testing.T) {
			s := &shelf{}
			server := httptest.NewServer(s)
			defer server.Close()
			root := test.make(s)
			layers, err := layersFrom(t, server, root.Digest)
			if test.want == "" {
				if err != nil || len(layers) != 1 {
					t.Errorf("%d layers, %v", len(layers), err)
				}
			} else if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("want %q, got %v", test.want, err)
			}
			if s.asked > 3*maxDocuments {
				t.Errorf("asked %d times", s.asked)
			}
		})
	}
}

func layersFrom(t *testing.T, server *httptest.Server, dgst digest.Digest) ([]layer, error) {
	image := schema.Image(strings.TrimPrefix(server.URL, "http://") + "/odd@" + dgst.String())
	resolver, err := (&Store{}).resolver(image.Registry(), docker.DefaultHTTPTransport(nil))
	if err != nil {
		t.Fatal(err)
	}
	content, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	up := &upstream{Resolver: resolver, image: image, store: content}
	return up.layers(context.Background())
}

func TestUnpackedSizes(t *testing.T) {
	for _, test := range []struct {
		kind string
		size int64
		note map[string]string
		want int64
	}{
		{"gzip", 1000, nil, 3000},
		{"zstd", 1000, nil, 3500},
		{"", 1000, nil, 1000},
		{"gzip", 1000, map[string]string{labelUncompressed: "7"}, 7},
		{"gzip", 1000, map[string]string{labelUncompressed: "-7"}, 3000},
		{"gzip", 1000, map[string]string{labelUncompressed: "much"}, 3000},
		{"zstd", 1<<63 - 1, nil, 1 << 62},
	} {
		l := layer{kind: test.kind, desc: ocispec.Descriptor{Size: test.size, Annotations: test.note}}
		if got := l.unpacked(); got != test.want {
			t.Errorf("%+v: %d", test, got)
		}
	}
	if add(1<<62, 1<<62) != 1<<62 || add(1, 2) != 3 {
		t.Error("sums overflow")
	}
}
