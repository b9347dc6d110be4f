package schema

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Bounds on one module.
const (
	MaxEnvBytes   = 64 << 10 // names and values of its environment
	MaxArgsBytes  = 64 << 10 // its arguments; also those of an exec probe
	maxStop       = Duration(time.Hour)
	minRestart    = Duration(100 * time.Millisecond)
	maxRestartMin = Duration(time.Hour)
	maxRestartMax = Duration(24 * time.Hour)
	maxArgs       = 256
	maxEnv        = 256
	maxMounts     = 64
	maxDependsOn  = 64
	minMemory     = Bytes(1 << 20)
)

func checkModule(m Module, path []string, p *problems) {
	checkImage(m.Image, extend(path, "image"), p)
	checkObject(m.Twin.Desired, MaxDesiredBytes, extend(path, "twin", "desired"), p)
	if m.Stop.Timeout > maxStop {
		p.add(extend(path, "stop", "timeout"), "%v is longer than %v", time.Duration(m.Stop.Timeout), time.Duration(maxStop))
	}
	checkRestart(m.Restart, extend(path, "restart"), p)
	if m.Limits.Memory > 0 && m.Limits.Memory < minMemory {
		p.add(extend(path, "limits", "memory"), "%d bytes is below 1Mi, in which nothing runs: is a suffix missing, as in \"64Mi\"?", m.Limits.Memory)
	}
	checkCount(len(m.DependsOn), maxDependsOn, extend(path, "dependsOn"), p)
	checkWords(m.Args, extend(path, "args"), p)
	checkEnv(m.Env, extend(path, "env"), p)
	checkMounts(m.Mounts, extend(path, "mounts"), p)
}

// checkRestart holds the waits to what neither storms nor gives up: from 0s they
// begin at 1s once the first restart has not helped.
func checkRestart(r Restart, path []string, p *problems) {
	if r.Min != 0 && (r.Min < minRestart || r.Min > maxRestartMin) {
		p.add(extend(path, "min"), "%v is neither 0s, which is at once, nor within %v and %v", time.Duration(r.Min), time.Duration(minRestart), time.Duration(maxRestartMin))
	}
	least, why := r.Min, "restart.min"
	if r.Min == 0 {
		least, why = Duration(time.Second), "where the waits begin after restart.min 0s"
	}
	if r.Max < least || r.Max > maxRestartMax {
		p.add(extend(path, "max"), "%v is not within %v, %s, and %v", time.Duration(r.Max), time.Duration(least), why, time.Duration(maxRestartMax))
	}
}

func checkEnv(env map[string]string, path []string, p *problems) {
	checkCount(len(env), maxEnv, path, p)
	size := 0
	for _, name := range slices.Sorted(maps.Keys(env)) {
		size += len(name) + len(env[name]) + 2
		if strings.ContainsRune(env[name], 0) {
			p.add(extend(path, name), "holds a zero byte, which no environment variable can")
		}
	}
	if size > MaxEnvBytes {
		p.add(path, "%d bytes: at most %d; put more into a file on a volume, or into twin.desired", size, MaxEnvBytes)
	}
}

func checkMounts(mounts map[string]Mount, path []string, p *problems) {
	checkCount(len(mounts), maxMounts, path, p)
	for _, target := range slices.Sorted(maps.Keys(mounts)) {
		if m := mounts[target]; m.Tmpfs == 0 && m.Volume == "" && m.Host == "" {
			p.add(extend(path, target, "tmpfs"), "0 bytes hold nothing")
		}
	}
}
