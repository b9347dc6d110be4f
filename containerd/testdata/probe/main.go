// Probe is the module that the runtime's tests run. Its first argument says
// what it does.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	what, arg := "wait", ""
	if len(os.Args) > 1 {
		what = os.Args[1]
	}
	if len(os.Args) > 2 {
		arg = os.Args[2]
	}
	switch what {
	case "wait": // until it is told to end
		fmt.Println("waiting")
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		<-c
	case "stubborn": // never ends by itself
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ignoring")
		forever()
	case "hear": // says each SIGHUP that it gets
		c := make(chan os.Signal, 8)
		signal.Notify(c, syscall.SIGHUP)
		fmt.Println("listening")
		for range c {
			fmt.Println("heard")
		}
	case "exit":
		code, _ := strconv.Atoi(arg)
		os.Exit(code)
	case "eat": // memory, without end
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			all = append(all, b)
		}
	case "spam": // that many bytes
		n, _ := strconv.Atoi(arg)
		line := strings.Repeat("x", 1023) + "\n"
		for range n / 1024 {
			fmt.Print(line)
		}
		fmt.Println("spammed")
		forever()
	case "count": // that many kilobytes each second, for so many seconds
		perSecond, _ := strconv.Atoi(arg)
		seconds, _ := strconv.Atoi(os.Args[3])
		line := strings.Repeat("x", 1023) + "\n"
		for range seconds * 10 {
			fmt.Print(strings.Repeat(line, perSecond/10))
			time.Sleep(100 * time.Millisecond)
		}
		fmt.Println("counted")
		forever()
	case "half": // closes its standard output
		fmt.Println("heard")
		os.Stdout.Close()
		time.Sleep(500 * time.Millisecond) // until the shim has noticed
		for range 100 {                    // more than a pipe holds
			fmt.Fprintln(os.Stderr, strings.Repeat("x", 1023))
		}
		fmt.Fprintln(os.Stderr, "still heard")
		forever()
	case "serve": // what a probe may ask for
		fmt.Println(http.ListenAndServe("127.0.0.1:8080", http.HandlerFunc(serve)))
	case "answer": // with that exit code and these last words
		code, _ := strconv.Atoi(arg)
		fmt.Println("the first line")
		fmt.Fprint(os.Stderr, strings.Join(os.Args[3:], " "))
		os.Exit(code)
	case "read": // a file
		if err := read(arg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "flood": // print without end
		for {
			os.Stdout.WriteString(strings.Repeat("flood\n", 1000))
		}
	case "family": // a process with a child that holds its output
		child := exec.Command("/main", "wait")
		child.Stdout = os.Stdout
		child.Start()
		forever()
	case "rights": // what a command may, as one line
		status, _ := os.ReadFile("/proc/self/status")
		for line := range strings.Lines(string(status)) {
			for _, name := range []string{"Uid", "Gid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp"} {
				if f := strings.Fields(line); f[0] == name+":" {
					fmt.Print(name, "=", f[1], " ")
				}
			}
		}
		cwd, _ := os.Getwd()
		fmt.Print(cwd, " ", os.Getenv("WHO"))
		os.Exit(1)
	case "report": // what it sees
		json.NewEncoder(os.Stdout).Encode(report())
		forever()
	}
}

func serve(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/sick":
		http.Error(w, "out of order", http.StatusServiceUnavailable)
	case "/slow":
		<-r.Context().Done()
	}
}

func forever() {
	for {
		time.Sleep(time.Hour)
	}
}

func report() map[string]any {
	r := map[string]any{"uid": os.Getuid(), "gid": os.Getgid(), "pid": os.Getpid(), "args": os.Args}
	r["hostname"], _ = os.Hostname()
	r["cwd"], _ = os.Getwd()
	r["groups"], _ = os.Getgroups()
	r["env"] = os.Environ()
	status := map[string]string{}
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		status[k] = strings.TrimSpace(v)
	}
	r["status"] = status
	score, _ := os.ReadFile("/proc/self/oom_score_adj")
	r["oomScoreAdj"] = strings.TrimSpace(string(score))
	mounts, _ := os.ReadFile("/proc/self/mounts")
	r["mounts"] = strings.Split(strings.TrimSpace(string(mounts)), "\n")
	interfaces := map[string]string{}
	list, _ := net.Interfaces()
	for _, i := range list {
		interfaces[i.Name] = i.Flags.String()
	}
	r["interfaces"] = interfaces
	files, _ := os.ReadDir("/dev")
	var devices []string
	for _, f := range files {
		devices = append(devices, f.Name())
	}
	r["devices"] = devices
	r["tries"] = map[string]string{
		"unshare":     try(syscall.Unshare(syscall.CLONE_NEWUSER)),
		"mount":       try(syscall.Mount("none", "/tmp", "tmpfs", 0, "")),
		"sethostname": try(syscall.Sethostname([]byte("x"))),
		"chown":       try(os.Chown("/main", 1, 1)),
		"kcore":       try(read("/proc/kcore")),
		"sysrq":       try(os.WriteFile("/proc/sysrq-trigger", []byte("h"), 0)),
		"mknod":       try(syscall.Mknod("/disk", syscall.S_IFBLK|0o600, 0x0801)),
		"rootfs":      try(os.WriteFile("/written", nil, 0o600)),
		"identity":    try(os.WriteFile("/run/tidemark/x", nil, 0o600)),
		"volume":      try(os.WriteFile("/data/x", []byte("x"), 0o600)),
		"hosts":       try(read("/etc/hosts")),
		"credential":  try(read("/run/tidemark/identity.nk")),
	}
	return r
}

func try(err error) string {
	if err != nil {
		return err.Error()
	}
	return "ok"
}

func read(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := f.Read(make([]byte, 16))
	if n == 0 && err == nil {
		return fmt.Errorf("%s is empty", file)
	}
	return err
}
