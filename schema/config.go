package schema

// AgentConfig is what a device's owner decides, in one CUE file (#Agent). Paths
// are absolute, or relative to the file.
type AgentConfig struct {
	Device      string              `json:"device"`
	StateDir    string              `json:"stateDir" path:"file"` // survives reboots; default /var/lib/tidemark
	RunDir      string              `json:"runDir" path:"file"`   // tmpfs; default /run/tidemark
	Repository  Repository          `json:"repository"`           // where the fleet repository is
	Images      []ImageRule         `json:"images"`               // which signers are trusted for which images; none = no image runs
	Registries  map[string]Registry `json:"registries,omitempty"` // by host[:port], where the defaults do not do
	HostMounts  []string            `json:"hostMounts,omitempty"` // host paths, and all below them, that a module may mount
	HostNetwork []string            `json:"hostNetwork"`          // modules that may use the host's network; "*" is all
	Grants      Grants              `json:"grants,omitzero"`      // what definitions may allow modules beyond their own subjects
	Containerd  ContainerdConfig    `json:"containerd"`
	Leaf        LeafConfig          `json:"leaf"`
	Outbox      OutboxConfig        `json:"outbox"`
	Disk        DiskConfig          `json:"disk"`
	Logs        LogsConfig          `json:"logs"`
	Hub         *HubLink            `json:"hub,omitempty"` // absent: the device stands alone
}

// Repository says where definitions come from and what is accepted from there.
type Repository struct {
	URL            string   `json:"url"`                                  // https://, ssh://, user@host:path, or an absolute path
	Branch         string   `json:"branch"`                               // default main
	Path           string   `json:"path,omitempty"`                       // the device's directory; default: found by name
	Poll           Duration `json:"poll"`                                 // between two looks, with jitter; 1s to 24h, default 1m
	Verify         string   `json:"verify"`                               // VerifySigned or VerifyOff; no default
	AllowedSigners string   `json:"allowedSigners,omitempty" path:"file"` // file in ssh-keygen's ALLOWED SIGNERS format
	TokenFile      string   `json:"tokenFile,omitempty" path:"file"`      // HTTPS: "token" or "user:password"
	CAFile         string   `json:"caFile,omitempty" path:"file"`         // HTTPS: PEM certificates in place of the system's
	SSHKeyFile     string   `json:"sshKeyFile,omitempty" path:"file"`     // SSH: private key
	KnownHostsFile string   `json:"knownHostsFile,omitempty" path:"file"`
}

// What Repository.Verify may say.
const (
	VerifySigned = "signed"
	VerifyOff    = "off"
)

// ImageRule trusts the keys for the images that match. The first rule that
// matches decides; no match is a refusal.
type ImageRule struct {
	Name  string   `json:"name"`             // shown in evidence
	Match string   `json:"match"`            // repository with host; * is within a path element, ** is any number of elements
	Keys  []string `json:"keys" path:"file"` // files with PEM public keys (cosign.pub); any one suffices
}

// Registry says how to reach one registry.
type Registry struct {
	PlainHTTP    bool   `json:"plainHttp,omitempty"`                // loopback hosts are plain HTTP by default
	CAFile       string `json:"caFile,omitempty" path:"file"`       // PEM certificates in place of the system's
	PasswordFile string `json:"passwordFile,omitempty" path:"file"` // "user:password"
}

// ContainerdConfig says how to reach containerd.
type ContainerdConfig struct {
	Address     string `json:"address" path:"file"` // default /run/containerd/containerd.sock
	Namespace   string `json:"namespace"`           // default tidemark; what is found in it is ours to remove
	Snapshotter string `json:"snapshotter"`         // default overlayfs
	Runtime     string `json:"runtime"`             // default io.containerd.runc.v2
	Runc        string `json:"runc" path:"file"`    // path of the runc binary; default: the shim's own search
	Root        string `json:"root" path:"file"`    // its root directory, when it serves nobody but this agent; default: another's
}

// LeafConfig says where modules find the leaf.
type LeafConfig struct {
	Listen string `json:"listen"` // default 127.0.0.1:4222
}

// OutboxConfig bounds what waits for the hub.
type OutboxConfig struct {
	MaxBytes Bytes    `json:"maxBytes"` // on disk; 4Mi to 1Ti, default 256Mi
	TTL      Duration `json:"ttl"`      // 1s to a year, default 2h
}

// DiskConfig bounds what the agent takes of the disk.
type DiskConfig struct {
	Reserve Bytes `json:"reserve"` // stays free where images are unpacked; at most 1Ti, default 128Mi
}

// LogsConfig bounds what is kept of the modules' output.
type LogsConfig struct {
	MaxBytes Bytes `json:"maxBytes"` // of each module, on disk; 64Ki to 1Gi, default 4Mi
}

// HubLink says where the hub is.
type HubLink struct {
	URL    string `json:"url"` // nats-leaf://host:7422 or tls://host:7422
	CAFile string `json:"caFile,omitempty" path:"file"`
}

// HubConfig is what the operator of a hub decides, in one CUE file (#Hub).
type HubConfig struct {
	StateDir   string         `json:"stateDir" path:"file"`
	Repository Repository     `json:"repository"`
	Listen     string         `json:"listen"`             // clients; default 127.0.0.1:4223
	LeafListen string         `json:"leafListen"`         // devices; default 0.0.0.0:7422
	TLS        *TLSFiles      `json:"tls,omitempty"`      // for LeafListen
	External   *ExternalNATS  `json:"external,omitempty"` // use this server or cluster in place of the embedded one
	Streams    HubStreamsSpec `json:"streams"`
}

// TLSFiles are a certificate and its key, PEM.
type TLSFiles struct {
	CertFile string `json:"certFile" path:"file"`
	KeyFile  string `json:"keyFile" path:"file"`
}

// ExternalNATS is a NATS server or cluster that somebody else runs.
type ExternalNATS struct {
	URL               string `json:"url"`
	CredsFile         string `json:"credsFile,omitempty" path:"file"`         // NKey seed or user credentials file, of the hub's account
	AuthorizationFile string `json:"authorizationFile,omitempty" path:"file"` // written with the admitted devices, for the server's configuration to include in the account of devices
}

// HubStreamsSpec bounds the hub's storage.
type HubStreamsSpec struct {
	MaxBytes Bytes `json:"maxBytes"` // messages of all devices; default 1Gi
	Replicas int   `json:"replicas"` // default 1
}
