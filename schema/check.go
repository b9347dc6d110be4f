package schema

import (
	"strconv"
	"strings"
	"time"
)

const (
	maxGate     = Duration(24 * time.Hour)
	maxDeadline = Duration(24 * time.Hour)
	maxKeep     = 64
	maxModules  = 500
)

// checkDevice notes what is wrong with d and beyond CUE: sizes, ranges, and
// what concerns several modules.
func checkDevice(d Desired, p *problems) {
	root := []string{"device"}
	if d.Gate > maxGate {
		p.add(extend(root, "gate"), "%v is longer than %v", time.Duration(d.Gate), time.Duration(maxGate))
	}
	switch {
	case d.Deadline <= 0:
		p.add(extend(root, "deadline"), "%v is no time in which a module could become healthy", time.Duration(d.Deadline))
	case d.Deadline > maxDeadline:
		p.add(extend(root, "deadline"), "%v is longer than %v", time.Duration(d.Deadline), time.Duration(maxDeadline))
	}
	checkCount(len(d.Keep), maxKeep, extend(root, "keep"), p)
	for i, image := range d.Keep {
		checkImage(image, extend(root, "keep", strconv.Itoa(i)), p)
	}
	checkObject(d.Tags, MaxTagsBytes, extend(root, "tags"), p)
	checkObject(d.Twin.Desired, MaxDesiredBytes, extend(root, "twin", "desired"), p)
	checkRoutes(d, extend(root, "routes"), p)
	if d.Twin.Signal != "" {
		p.add(extend(root, "twin", "signal"), "a device has no process that could get it: say it of a module")
	}
	checkCount(len(d.Modules), maxModules, extend(root, "modules"), p)
	for _, m := range d.Modules {
		path := extend(root, "modules", m.Name)
		checkModule(m, path, p)
		checkHealth(m.Health, d.Deadline, extend(path, "health"), p)
		checkUpdate(m, extend(path, "update", "strategy"), p)
		checkAllow(d, m, extend(path, "identity", "allow"), p)
	}
	checkDependencies(d, p)
}

func checkImage(image Image, path []string, p *problems) {
	if _, err := ParseImage(string(image)); err != nil {
		p.add(path, "%v", err)
	}
}

func checkCount(n, most int, path []string, p *problems) {
	if n > most {
		p.add(path, "%d of them: at most %d", n, most)
	}
}

func checkRange(d, least, most Duration, path []string, p *problems) {
	if d < least || d > most {
		p.add(path, "%v is not within %v and %v", time.Duration(d), time.Duration(least), time.Duration(most))
	}
}

// checkWords bounds a command: what a process can be given as its arguments.
func checkWords(words []string, path []string, p *problems) {
	checkCount(len(words), maxArgs, path, p)
	size := 0
	for i, word := range words {
		size += len(word) + 1
		if strings.ContainsRune(word, 0) {
			p.add(extend(path, strconv.Itoa(i)), "holds a zero byte, which no argument can")
		}
	}
	if size > MaxArgsBytes {
		p.add(path, "%d bytes: at most %d", size, MaxArgsBytes)
	}
}
