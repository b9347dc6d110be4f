package schema

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// checkDependencies notes dependencies that can never hold: on a module that
// is not declared, on one that is declared not to run, and around in a circle.
func checkDependencies(d Desired, p *problems) {
	modules := map[string]Module{}
	for _, m := range d.Modules {
		modules[m.Name] = m
	}
	for _, m := range d.Modules {
		for _, on := range slices.Sorted(maps.Keys(m.DependsOn)) {
			other, declared := modules[on]
			path := []string{"device", "modules", m.Name, "dependsOn", on}
			switch {
			case !declared:
				p.add(path, "no module is named %s", on)
			case other.Status == StatusStopped && m.Status == StatusRunning:
				p.add(path, "module %s has status %q, so %s would never start", on, StatusStopped, m.Name)
			}
		}
	}
	for _, cycle := range cycles(modules) {
		p.add([]string{"device", "modules", cycle[0], "dependsOn", cycle[1]}, "modules wait for each other: %s", arrows(cycle))
	}
}

// cycles lists circles of dependencies, each from its first module by name back
// to it. One circle is found for each module from which a search meets one.
func cycles(modules map[string]Module) [][]string {
	const open, done = 1, 2
	var found [][]string
	state := map[string]int{}
	var trail []string
	var visit func(name string)
	visit = func(name string) {
		state[name] = open
		trail = append(trail, name)
		for _, on := range slices.Sorted(maps.Keys(modules[name].DependsOn)) {
			if _, declared := modules[on]; !declared {
				continue
			}
			switch state[on] {
			case open:
				circle := slices.Clone(trail[slices.Index(trail, on):])
				found = append(found, fromFirst(circle))
			case 0:
				visit(on)
			}
		}
		trail = trail[:len(trail)-1]
		state[name] = done
	}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		if state[name] == 0 {
			visit(name)
		}
	}
	return found
}

// fromFirst turns a circle so that it starts with its first name, and closes it.
func fromFirst(circle []string) []string {
	i := slices.Index(circle, slices.Min(circle))
	turned := append(slices.Clone(circle[i:]), circle[:i]...)
	return append(turned, turned[0])
}

// arrows writes a circle; one that is too long for a message keeps its beginning
// and its end.
func arrows(circle []string) string {
	const most = maxMessage - 100 // which leaves room for what is said around it
	whole := strings.Join(circle, " → ")
	if len(whole) <= most {
		return whole
	}
	end := strings.Join(circle[len(circle)-2:], " → ")
	size, n := len(end), 0
	for size+len(circle[n]) < most {
		size += len(circle[n]) + len(" → ")
		n++
	}
	return fmt.Sprintf("%s → (%d more) → %s", strings.Join(circle[:n], " → "), len(circle)-2-n, end)
}
