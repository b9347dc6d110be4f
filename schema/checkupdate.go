package schema

import (
	"maps"
	"slices"
)

// checkUpdate notes why a module cannot be started beside the one that it
// replaces: for a moment there are two of it.
func checkUpdate(m Module, path []string, p *problems) {
	if m.Update.Strategy != UpdateStartThenStop {
		return
	}
	if m.Network == NetworkHost {
		p.add(path, "%q has two containers for a moment, and on the device's own network the new one cannot listen where the old one does: use network %q, or strategy %q",
			UpdateStartThenStop, NetworkNone, UpdateRecreate)
	}
	for _, target := range slices.Sorted(maps.Keys(m.Mounts)) {
		if mount := m.Mounts[target]; !mount.ReadOnly && (mount.Volume != "" || mount.Host != "") {
			p.add(path, "%q has two containers for a moment, and both would write to %s: mount it readOnly, or use strategy %q",
				UpdateStartThenStop, target, UpdateRecreate)
		}
	}
	for _, probe := range []struct {
		name string
		*Probe
	}{{"startup", m.Health.Startup}, {"liveness", m.Health.Liveness}, {"readiness", m.Health.Readiness}} {
		if probe.Probe != nil && probe.NATS != nil {
			p.add(path, "%q has two containers for a moment, and either could answer the nats probe of health.%s: ask by exec, http or tcp, or use strategy %q",
				UpdateStartThenStop, probe.name, UpdateRecreate)
		}
	}
}
