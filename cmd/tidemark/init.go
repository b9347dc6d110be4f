package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tidemark-edge/tidemark/schema"
)

func newInit() *cobra.Command {
	var out output
	var fleet schema.Scaffold
	cmd := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Make a fleet repository",
		Long: `Write a fleet repository into DIR (default: the current directory): one device in
one site, Tidemark's CUE definitions beside it so that ` + "`cue vet -c ./...`" + ` works with no
network, and a README that says what is where. Files that are there already are
left as they are, and are an error unless they are the same.`,
		Example: "  tidemark init fleet --site hannover --device hannover01\n  cd fleet && git init && git add . && git commit",
		Args:    usage(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			files, err := fleet.Files()
			if err != nil {
				return &exitError{exitUsage, err}
			}
			if err := writeNew(dir, files); err != nil {
				return err
			}
			paths := slices.Sorted(maps.Keys(files))
			return out.print(cmd, paths, func(w io.Writer) {
				for _, path := range paths {
					fmt.Fprintln(w, filepath.Join(dir, path))
				}
			})
		},
	}
	out.flag(cmd)
	cmd.Flags().StringVar(&fleet.Module, "module", "example.com/fleet", "the repository's CUE module")
	cmd.Flags().StringVar(&fleet.Site, "site", "home", "name of the first site")
	cmd.Flags().StringVar(&fleet.Device, "device", "device1", "name of the first device")
	return cmd
}

// writeNew writes files below dir and overwrites none: when one is there with
// another content, nothing at all is written.
func writeNew(dir string, files map[string][]byte) error {
	for _, path := range slices.Sorted(maps.Keys(files)) {
		content := files[path]
		present, err := os.ReadFile(filepath.Join(dir, path))
		if err == nil && string(present) != string(content) {
			return fmt.Errorf("%s is there already, and not as `tidemark init` writes it: nothing was written", filepath.Join(dir, path))
		}
		if err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	for path, content := range files {
		target := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
