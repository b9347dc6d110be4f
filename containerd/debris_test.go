package containerd

import (
	"errors"
	"testing"
)

func TestBundleInAnError(t *testing.T) {
	const dir = "/run/containerd/io.containerd.runtime.v2.task/tidemark/sensor.01234567"
	for text, want := range map[string]string{
		"mkdir " + dir + ": file exists":                                             dir,
		"failed to start shim: mkdir " + dir + ": file exists: unknown":              dir,
		"mkdir " + dir + ": no space left on device":                                 "",
		"mkdir /run/../etc: file exists":                                             "",
		"mkdir /etc: file exists":                                                    "",
		"mkdir relative" + dir + ": file exists":                                     "",
		"mkdir /x/.." + dir + ": file exists":                                        "",
		"mkdir : file exists":                                                        "",
		"task sensor.01234567: already exists":                                       "",
		"mkdir " + dir + "2: file exists":                                            "",
		"mkdir /run/io.containerd.runtime.v2.task/tidemark/: file exists":            "",
		"mkdir /a/io.containerd.runtime.v2.task/k8s.io/sensor.01234567: file exists": "",
	} {
		if got := bundleIn(errors.New(text), "tidemark", "sensor.01234567"); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
