package specification

// Host is what a device gives to its modules, beyond an image.
type Host struct {
	// StateDir survives reboots. Below it are volumes/<module>/<volume> and
	// hosts/<module>, which this package makes.
	StateDir string
	// HostMounts are the host paths that a module may mount, with all below
	// them.
	HostMounts []string
	// HostNetwork names the modules that may use the host's network; "*" is
	// all of them.
	HostNetwork []string
}
