package schema

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

var zeros = strings.Repeat("0", 64)

func TestParseImage(t *testing.T) {
	good := "registry.example.com:5000/a/b_c@sha256:" + zeros
	image, err := ParseImage(good)
	if err != nil || image.Registry() != "registry.example.com:5000" || image.Repository() != "registry.example.com:5000/a/b_c" || image.Digest() != "sha256:"+zeros {
		t.Errorf("got %q, %v", image, err)
	}
	for _, c := range []struct{ in, want string }{
		{"", "a tag can be moved"},
		{"nginx", "a tag can be moved"},
		{"registry.example.com/a:1.0", "pin the digest"},
		{"a@sha256:" + zeros, "want host/repository@sha256"},
		{"registry.example.com/a@sha256:" + zeros[1:], "want host/repository@sha256"},
		{"registry.example.com/a@sha256:" + zeros + "0", "want host/repository@sha256"},
		{"registry.example.com/a@sha256:" + strings.Repeat("A", 64), "want host/repository@sha256"},
		{"registry.example.com/a@sha512:" + zeros + zeros, "want host/repository@sha256"},
		{"registry.example.com/a:1@sha256:" + zeros, "want host/repository@sha256"},
		{"registry.example.com/A@sha256:" + zeros, "want host/repository@sha256"},
		{"registry.example.com//a@sha256:" + zeros, "want host/repository@sha256"},
		{"https://registry.example.com/a@sha256:" + zeros, "want host/repository@sha256"},
		{good + "\n", "want host/repository@sha256"},
		{" " + good, "want host/repository@sha256"},
		{"x.y/" + strings.Repeat("a", 1000) + "@sha256:" + zeros, "longer than"},
	} {
		if _, err := ParseImage(c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.in, err, c.want)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for in, want := range map[string]Bytes{"0": 0, "1": 1, "1Ki": 1 << 10, "64Mi": 64 << 20, "8Gi": 8 << 30, "2Ti": 2 << 40} {
		if got, err := ParseBytes(in); err != nil || got != want {
			t.Errorf("%s: got %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "Mi", "-1", "1.5Gi", "1MB", "1 Mi", "9223372036854775808", "8388608Ti", "0x10", "1e3", "١"} {
		if got, err := ParseBytes(in); err == nil {
			t.Errorf("%q: got %d, want an error", in, got)
		}
	}
}

// What rounds to 1024 of one unit is written as one of the next.
func TestShort(t *testing.T) {
	for in, want := range map[Bytes]string{
		0: "0 B", 1: "1 B", 1023: "1023 B", -1: "-1 B", -1023: "-1023 B",
		1 << 10: "1.0 KiB", -1 << 10: "-1.0 KiB", 1536: "1.5 KiB", -1536: "-1.5 KiB",
		1023 << 10:           "1023.0 KiB",
		1<<20 - 52:           "1023.9 KiB",
		1<<20 - 51:           "1.0 MiB", // 1023.9502 KiB
		1<<20 - 1:            "1.0 MiB",
		-(1<<20 - 1):         "-1.0 MiB",
		1 << 20:              "1.0 MiB",
		1<<30 - 1:            "1.0 GiB",
		1<<40 - 1:            "1.0 TiB",
		3 << 29:              "1.5 GiB",
		1 << 50:              "1024.0 TiB",
		math.MaxInt64:        "8388608.0 TiB",
		Bytes(math.MinInt64): "-8388608.0 TiB",
	} {
		if got := in.Short(); got != want {
			t.Errorf("%d: got %q, want %q", in, got, want)
		}
	}
}

func FuzzParseImage(f *testing.F) {
	f.Add("registry.example.com:5000/a/b@sha256:" + zeros)
	f.Add("nginx:latest")
	f.Fuzz(func(t *testing.T, s string) {
		image, err := ParseImage(s)
		if err != nil {
			return
		}
		if string(image) != image.Repository()+"@"+image.Digest() || !strings.HasPrefix(image.Repository(), image.Registry()+"/") {
			t.Errorf("%q falls apart: %q %q %q", s, image.Registry(), image.Repository(), image.Digest())
		}
	})
}

func FuzzBytes(f *testing.F) {
	for _, s := range []string{"1", `"64Mi"`, `"8388608Ti"`, "-1", "null", "{}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var b Bytes
		if json.Unmarshal([]byte(s), &b) == nil && b < 0 {
			t.Errorf("%q: %d", s, b)
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{`"1m30s"`, `"-5s"`, `"1e9h"`, "5", "null"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var d, again Duration
		if json.Unmarshal([]byte(s), &d) != nil {
			return
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &again); err != nil || again != d {
			t.Errorf("%s: %v became %v, %v", s, d, again, err)
		}
	})
}
