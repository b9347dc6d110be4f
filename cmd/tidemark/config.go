package main

import (
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/schema"
)

// Where the daemons and commands look when --config is not given.
const (
	defaultAgentConfig = "/etc/tidemark/agent.cue"
	defaultHubConfig   = "/etc/tidemark/hub.cue"
)

// envPrefix begins the environment variables that override a configuration:
// TIDEMARK_HUB_URL is hub.url.
const envPrefix = "TIDEMARK_"

// configFlags are a configuration file and what overrides it: first the
// environment, then --set.
type configFlags struct {
	file string
	set  []string
}

func (f *configFlags) flags(cmd *cobra.Command, file string) {
	cmd.Flags().StringVarP(&f.file, "config", "c", file, "configuration, one CUE file")
	cmd.Flags().StringArrayVar(&f.set, "set", nil, "override a field: --set repository.poll=10s (repeatable; TIDEMARK_REPOSITORY_POLL does the same)")
}

// agent reads the configuration of an agent.
func (f *configFlags) agent() (schema.AgentConfig, error) {
	overrides, err := f.overrides(reflect.TypeFor[schema.AgentConfig]())
	if err != nil {
		return schema.AgentConfig{}, err
	}
	return schema.LoadAgentConfig(f.file, overrides)
}

// hub reads the configuration of a hub.
func (f *configFlags) hub() (schema.HubConfig, error) {
	overrides, err := f.overrides(reflect.TypeFor[schema.HubConfig]())
	if err != nil {
		return schema.HubConfig{}, err
	}
	return schema.LoadHubConfig(f.file, overrides)
}

// overrides collects values by path: of the environment for the fields that the
// configuration has, and of --set for whatever it names.
func (f *configFlags) overrides(config reflect.Type) (map[string]string, error) {
	overrides := map[string]string{}
	for _, path := range fieldPaths(config, "") {
		if value, ok := os.LookupEnv(envName(path)); ok {
			overrides[path] = value
		}
	}
	for _, pair := range f.set {
		path, value, ok := strings.Cut(pair, "=")
		if !ok || path == "" {
			return nil, &exitError{exitUsage, fmt.Errorf("--set %q: want path=value, as in repository.poll=10s", pair)}
		}
		overrides[path] = value
	}
	return overrides, nil
}

// fieldPaths lists the fields of a configuration that hold one value, by their
// path: "hub.url". Lists and maps have no place in an environment variable.
func fieldPaths(t reflect.Type, prefix string) []string {
	var paths []string
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		kind := field.Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		switch kind.Kind() {
		case reflect.Struct:
			paths = append(paths, fieldPaths(kind, prefix+name+".")...)
		case reflect.Slice, reflect.Map:
		default:
			paths = append(paths, prefix+name)
		}
	}
	return paths
}

// envName is the environment variable of a path: hub.caFile is
// TIDEMARK_HUB_CA_FILE.
func envName(path string) string {
	var b strings.Builder
	b.WriteString(envPrefix)
	for _, c := range path {
		switch {
		case c == '.':
			b.WriteByte('_')
		case c >= 'A' && c <= 'Z':
			b.WriteByte('_')
			b.WriteRune(c)
		default:
			b.WriteString(strings.ToUpper(string(c)))
		}
	}
	return b.String()
}
