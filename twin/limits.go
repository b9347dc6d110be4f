package twin

// The limits of a twin are Azure IoT Hub's. Sizes are of the compact JSON
// without the $ members.
const (
	MaxSection = 32 << 10 // bytes of desired, and of reported
	MaxTags    = 8 << 10  // bytes of tags
	MaxDepth   = 10       // objects and arrays within each other, below the section
	MaxKey     = 512      // bytes of a key

	// maxDocument bounds a whole document on the wire: both sections with their
	// metadata.
	maxDocument = 1 << 20
)
