package schema

import (
	"net/url"
	"time"
)

const (
	minProbeInterval = Duration(100 * time.Millisecond)
	maxProbeInterval = Duration(time.Hour)
	minProbeTimeout  = Duration(10 * time.Millisecond)
	maxProbeTimeout  = Duration(10 * time.Minute)
)

// checkHealth notes what is wrong with a module's probes. deadline is the
// device's.
func checkHealth(h Health, deadline Duration, path []string, p *problems) {
	checkProbe(h.Startup, extend(path, "startup"), p)
	checkProbe(h.Liveness, extend(path, "liveness"), p)
	checkProbe(h.Readiness, extend(path, "readiness"), p)
	if s := h.Startup; s != nil {
		// The last of the failures in a row comes after that.
		if takes := s.Interval * Duration(s.Failures); takes > deadline && deadline > 0 && s.Interval <= maxProbeInterval {
			p.add(extend(path, "startup"), "%d failures %v apart take %v, and the device's deadline is %v: a module that starts slowly fails its trial before the probe has said no; raise device.deadline, or lower failures or interval",
				s.Failures, time.Duration(s.Interval), time.Duration(takes), time.Duration(deadline))
		}
	}
}

func checkProbe(probe *Probe, path []string, p *problems) {
	if probe == nil {
		return
	}
	checkRange(probe.Interval, minProbeInterval, maxProbeInterval, extend(path, "interval"), p)
	checkRange(probe.Timeout, minProbeTimeout, maxProbeTimeout, extend(path, "timeout"), p)
	if probe.Exec != nil {
		checkWords(probe.Exec.Command, extend(path, "exec", "command"), p)
	}
	if probe.HTTP != nil {
		if _, err := url.Parse("http://127.0.0.1" + probe.HTTP.Path); err != nil {
			p.add(extend(path, "http", "path"), "%q is no path of a URL: %% begins two hexadecimal digits, as in /a%%20b", probe.HTTP.Path)
		}
	}
}
