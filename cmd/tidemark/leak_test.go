package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// anySeed is what an NKey's seed looks like, whoever's it is.
var anySeed = regexp.MustCompile(`S[AUNCOX][A-Z2-7]{56}`)

// keepsSecrets has a device and its hub, as talkative as they can be, do what a person
// has them do, and looks for what they keep secret in all that is printed, in the logs,
// in everything on the disk but the files that are for it, and in the environment and
// the command line of every process of this machine.
func (s *site) keepsSecrets() {
	w := &secrets{site: s, kept: map[string]string{s.token: s.path("token"), s.password: s.path("password")}}
	w.learn()
	if len(w.kept) != 7 { // device, person there, two modules, person at the hub, Git, registry
		s.Fatalf("there are %d secrets: %v", len(w.kept), w.files())
	}
	operator := []string{"--hub", s.people, "--creds", filepath.Join(s.hubState, "operator.nk")}
	for _, line := range [][]string{
		{"status"}, {"status", "-o", "json"}, {"identity", "list"}, {"identity", "list", "-o", "json"},
		{"identity", "rotate", "sensor", "--grace", "1h", "--reason", "visit"},
		{"identity", "rotate", "fixed", "--grace", "0s", "-o", "json"},
		{"twin", "set", "sensor", "interval=100ms", "--for", "1h", "--reason", "visit"},
		{"twin", "get", "-o", "json"}, {"twin", "get", "sensor", "-o", "json"}, {"twin", "list", "-o", "json"},
		{"twin", "export"}, {"twin", "export", "-o", "json"}, {"twin", "unset", "sensor"},
		{"history"}, {"history", "-o", "json"}, {"logs"}, {"logs", "sensor"}, {"reconcile"},
		{"call", "status"}, {"call", "sensor/nosuch"}, {"enroll", "--config", s.path("agent.cue")}, {"version"},
		append([]string{"twin", "list", "-o", "json"}, operator...), append([]string{"twin", "get", "d1", "-o", "json"}, operator...),
		append([]string{"messages", "-o", "json"}, operator...), append([]string{"audit", "d1"}, operator...),
		append([]string{"call", "d1/identity-list"}, operator...), append([]string{"call", "d1/status"}, operator...),
		{"messages", "--hub", s.people, "--creds", s.path("state/identity.nk")},            // a key that may not
		{"messages", "--hub", s.people, "--creds", filepath.Join(s.runDir, "operator.nk")}, // one that is not known
		{"messages", "--hub", s.people, "--creds", s.path("token")},                        // none at all
		{"agent", "--config", s.path("token")}, {"agent", "--config", s.path("password")}, {"hub", "--config", s.path("state/identity.nk")},
	} {
		out, said, _ := s.types(line...)
		w.search("what `tidemark "+strings.Join(line, " ")+"` prints", []byte(out+said))
	}
	w.learn()
	if len(w.kept) != 9 {
		s.Fatalf("after two rotations there are %d secrets", len(w.kept))
	}
	w.searchProcesses()
	w.searchFiles(s.dir, s.runDir)
	log, err := os.ReadFile(s.agent.Log())
	if err != nil || !bytes.Contains(log, []byte("level=INFO")) {
		s.Errorf("the agent's log is not where it was looked for: %v", err)
	}
	for _, secret := range []string{"state/identity.nk", "hub/operator.nk"} { // so that the search is one
		if n := w.files()[s.path(secret)]; n != 1 {
			s.Errorf("%s is one of %v", secret, w.files())
		}
	}
}

// secrets are what a site keeps, each with the one file that it may be in.
type secrets struct {
	*site
	kept map[string]string // file by secret
}

// learn reads the seeds that there are now; those of before stay secret.
func (w *secrets) learn() {
	w.Helper()
	files, err := filepath.Glob(filepath.Join(w.runDir, "modules", "*", "identity.nk"))
	if err != nil || len(files) != 2 {
		w.Fatalf("seeds of modules: %v, %v", files, err)
	}
	for _, file := range append(files, w.path("state/identity.nk"), filepath.Join(w.hubState, "operator.nk"), filepath.Join(w.runDir, "operator.nk")) {
		seed, err := os.ReadFile(file)
		if err != nil || !anySeed.Match(seed) {
			w.Fatalf("%s is no seed: %v", file, err)
		}
		w.kept[string(bytes.TrimSpace(seed))] = file
	}
}

// files counts the secrets of each file.
func (w *secrets) files() map[string]int {
	n := map[string]int{}
	for _, file := range w.kept {
		n[file]++
	}
	return n
}

// search fails the test where a secret is in what is not for it.
func (w *secrets) search(where string, what []byte) {
	w.Helper()
	for secret, file := range w.kept {
		if where != file && bytes.Contains(what, []byte(secret)) {
			w.Errorf("%s has the secret of %s", where, file)
		}
	}
	if _, isFor := w.files()[where]; !isFor && anySeed.Match(what) {
		w.Errorf("%s has a seed", where)
	}
}

// searchProcesses looks at every process that there is.
func (w *secrets) searchProcesses() {
	w.Helper()
	pids, seen := []string{}, map[string]bool{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		w.Fatal(err)
	}
	for _, e := range entries {
		if strings.Trim(e.Name(), "0123456789") == "" {
			pids = append(pids, e.Name())
		}
	}
	for _, pid := range pids {
		for _, what := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(filepath.Join("/proc", pid, what))
			if errors.Is(err, fs.ErrNotExist) || err != nil && what == "environ" {
				continue // it ended
			}
			w.search("/proc/"+pid+"/"+what+" of "+command(pid), text)
			if what == "environ" {
				for _, mark := range []string{"TIDEMARK_CREDS=/run/tidemark/", "TIDEMARK_RUN_DIR=" + w.runDir} {
					seen[mark] = seen[mark] || bytes.Contains(text, []byte(mark))
				}
			}
		}
	}
	if len(seen) != 2 || !seen["TIDEMARK_CREDS=/run/tidemark/"] || !seen["TIDEMARK_RUN_DIR="+w.runDir] {
		w.Errorf("modules and daemons were not among the processes: %v", seen)
	}
}

func command(pid string) string {
	name, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
	return strings.TrimSpace(string(name))
}

// searchFiles looks at every file below these directories.
func (w *secrets) searchFiles(dirs ...string) {
	w.Helper()
	n := 0
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return nil // removed meanwhile
			case err != nil:
				return err
			case e.IsDir() && e.Name() == "rootfs": // of a container that runs, with all that is mounted there
				return fs.SkipDir
			case !e.Type().IsRegular():
				return nil
			}
			content, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			n++
			w.search(path, content)
			return err
		})
		if err != nil {
			w.Error(err)
		}
	}
	if n < 50 {
		w.Errorf("only %d files", n)
	}
}
