package schema

// Desired is what one revision asks of one device.
type Desired struct {
	Revision Revision       `json:"revision"`           // set by the caller of Load; Load knows only a tree
	Device   string         `json:"device"`             // the device's name
	Identity string         `json:"identity,omitempty"` // the device's public NKey ("U…"), which the hub admits
	Tags     map[string]any `json:"tags,omitempty"`     // for people and targeting; modules do not see them
	Twin     TwinSpec       `json:"twin,omitzero"`      // the device twin
	Gate     Duration       `json:"gate,omitempty"`     // how long changed modules must stay healthy before the revision counts as good
	Deadline Duration       `json:"deadline,omitempty"` // how long changed modules may take until they are healthy; their gate follows
	Keep     []Image        `json:"keep,omitempty"`     // images to have on the disk though no module runs from them
	Routes   []Route        `json:"routes,omitempty"`   // of messages, sorted by name; none: DefaultRoute
	Modules  []Module       `json:"modules"`            // sorted by name
}

// Module returns the module of that name.
func (d Desired) Module(name string) (Module, bool) {
	for _, m := range d.Modules {
		if m.Name == name {
			return m, true
		}
	}
	return Module{}, false
}

// TwinSpec is what the definition says about a twin.
type TwinSpec struct {
	Desired  map[string]any `json:"desired,omitempty"`  // properties.desired
	Reported string         `json:"reported,omitempty"` // CUE source that every reported document must satisfy; empty accepts all
	Signal   string         `json:"signal,omitempty"`   // sent to the module's process when desired.json changed ("SIGHUP"); empty: none
	Fixed    bool           `json:"fixed,omitempty"`    // nobody may override desired on the device
}
