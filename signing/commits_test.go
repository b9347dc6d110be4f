package signing_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidemark-edge/tidemark/signing"
)

// repo is a real Git repository with real keys.
type repo struct {
	t   testing.TB
	dir string
}

func newRepo(t testing.TB) *repo {
	t.Helper()
	r := &repo{t: t, dir: t.TempDir()}
	r.git("init", "-q", "-b", "main")
	r.git("config", "gpg.format", "ssh")
	r.git("config", "user.name", "Alice")
	r.git("config", "user.email", "alice@example.com")
	return r
}

// key makes a key with ssh-keygen and returns its file.
func (r *repo) key(name string, args ...string) string {
	r.t.Helper()
	file := filepath.Join(r.dir, name)
	r.run("ssh-keygen", append([]string{"-q", "-N", "", "-C", name, "-f", file}, args...)...)
	return file
}

// public is the "type base64" part of a key's public half.
func (r *repo) public(key string) string {
	r.t.Helper()
	data, err := os.ReadFile(key + ".pub")
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(data))[:2], " ")
}

// commit signs an empty commit with key at a time, and returns the raw object.
func (r *repo) commit(key string, at time.Time, args ...string) []byte {
	r.t.Helper()
	stamp := fmt.Sprintf("%d +0000", at.Unix())
	args = append([]string{"-c", "user.signingkey=" + key, "commit", "-q", "--allow-empty", "-S", "-m", "change\n\nbody"}, args...)
	cmd := r.command("git", args...)
	cmd.Env = append(cmd.Env, "GIT_AUTHOR_DATE="+stamp, "GIT_COMMITTER_DATE="+stamp)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("git commit: %v\n%s", err, out)
	}
	return r.git("cat-file", "commit", "HEAD")
}

// signers writes an allowed signers file.
func (r *repo) signers(lines ...string) string {
	r.t.Helper()
	file := filepath.Join(r.t.TempDir(), "allowed_signers")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return file
}

func (r *repo) git(args ...string) []byte { r.t.Helper(); return r.run("git", args...) }

func (r *repo) run(program string, args ...string) []byte {
	r.t.Helper()
	out, err := r.command(program, args...).Output()
	if err != nil {
		r.t.Fatalf("%s %v: %v", program, args, err)
	}
	return out
}

func (r *repo) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "HOME="+r.dir)
	return cmd
}

// gitAccepts asks git itself about HEAD.
func (r *repo) gitAccepts(signers string) bool {
	return r.command("git", "-c", "gpg.ssh.allowedSignersFile="+signers, "verify-commit", "HEAD").Run() == nil
}

func commits(t testing.TB, file string) *signing.Commits {
	t.Helper()
	c, err := signing.NewCommits(file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var may = time.Date(2024, 5, 15, 12, 0, 0, 0, time.UTC)

func TestCommitSignedByEveryKindOfKey(t *testing.T) {
	r := newRepo(t)
	for name, args := range map[string][]string{
		"ed25519":   {"-t", "ed25519"},
		"ecdsa-256": {"-t", "ecdsa", "-b", "256"},
		"ecdsa-384": {"-t", "ecdsa", "-b", "384"},
		"ecdsa-521": {"-t", "ecdsa", "-b", "521"},
		"rsa":       {"-t", "rsa", "-b", "2048"},
	} {
		t.Run(name, func(t *testing.T) {
			key := r.key(name, args...)
			raw := r.commit(key, may)
			file := r.signers("# the team", "", "bob@example.com "+r.public(r.key(name+"-other", "-t", "ed25519")), "alice@example.com,alice "+r.public(key)+" a comment")
			if !r.gitAccepts(file) {
				t.Fatal("git itself does not accept it")
			}
			got, err := commits(t, file).VerifyCommit(raw)
			if err != nil || got != "alice@example.com,alice" {
				t.Errorf("VerifyCommit = %q, %v", got, err)
			}
		})
	}
}

// Each line is judged by git and by us, on the same commit.
func TestAllowedSignersMeanWhatGitTakesThemFor(t *testing.T) {
	r := newRepo(t)
	key := r.key("alice", "-t", "ed25519")
	raw := r.commit(key, may)
	k := r.public(key)
	for _, tt := range []struct {
		line string
		want string // part of the refusal; empty: accepted
	}{
		{`alice@example.com ` + k, ""},
		{`* ` + k, ""},
		{`"alice@example.com" ` + k, ""},
		{`alice@example.com	` + k, ""},
		{`alice@example.com namespaces="git" ` + k, ""},
		{`alice@example.com namespaces="file,git" ` + k, ""},
		{`alice@example.com namespaces="g*" ` + k, ""},
		{`alice@example.com NAMESPACES="git" ` + k, ""},
		{`alice@example.com namespaces="file" ` + k, "namespace git"},
		{`alice@example.com namespaces="*,!git" ` + k, "namespace git"},
		{`alice@example.com valid-after="20240101Z" ` + k, ""},
		{`alice@example.com valid-after="20240601Z" ` + k, "only after 2024-06-01T00:00:00Z"},
		{`alice@example.com valid-before="20240601Z" ` + k, ""},
		{`alice@example.com valid-before="20240101Z" ` + k, "only before 2024-01-01T00:00:00Z"},
		{`alice@example.com valid-before="202405151200Z" ` + k, ""},
		{`alice@example.com valid-before="20240515115959Z" ` + k, "only before"},
		{`alice@example.com namespaces="git",valid-after="20240101Z",valid-before="20250101Z" ` + k, ""},
		{`alice@example.com ` + r.public(r.key("mallory", "-t", "ed25519")), "not in the allowed signers"},
	} {
		file := r.signers(tt.line)
		if git := r.gitAccepts(file); git != (tt.want == "") {
			t.Errorf("%s: git says %t", tt.line, git)
		}
		_, err := commits(t, file).VerifyCommit(raw)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.line, err, tt.want)
		}
	}
}

// A key that was retired cannot sign anything new by dating it back, once the
// accepted history is past the key's end, wherever the device's clock stands.
func TestRetiredKeyCannotBackdate(t *testing.T) {
	r := newRepo(t)
	old, current := r.key("old", "-t", "ed25519"), r.key("current", "-t", "ed25519")
	c := commits(t, r.signers(
		`old valid-before="20240601Z" `+r.public(old),
		`current valid-after="20240501Z" `+r.public(current)))

	first := r.commit(old, may)
	if got, err := c.VerifyCommit(first); err != nil || got != "old" {
		t.Fatalf("signed in time: %q, %v", got, err)
	}
	july := may.AddDate(0, 2, 0)
	if got, err := c.VerifyDescendant(r.commit(current, july), may); err != nil || got != "current" {
		t.Fatalf("successor: %q, %v", got, err)
	}
	backdated := r.commit(old, may)
	if _, err := c.VerifyDescendant(backdated, july); err == nil || !strings.Contains(err.Error(), "only before 2024-06-01") {
		t.Errorf("back-dated commit on top of July's: %v", err)
	}
}

func TestCommitThatIsNotGenuine(t *testing.T) {
	r := newRepo(t)
	key := r.key("alice", "-t", "ed25519")
	raw := string(r.commit(key, may))
	second := string(r.commit(key, may.Add(time.Hour)))
	c := commits(t, r.signers("alice "+r.public(key)))
	sig := func(raw string) string { return raw[strings.Index(raw, "gpgsig "):strings.Index(raw, "\n\n")] }
	blob := func(raw string) []byte {
		b64 := strings.NewReplacer("gpgsig -----BEGIN SSH SIGNATURE-----", "", "-----END SSH SIGNATURE-----", "", "\n", "", " ", "").Replace(sig(raw))
		out, err := base64.StdEncoding.DecodeString(b64)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	resign := func(blob []byte) string {
		return strings.Replace(raw, sig(raw), "gpgsig -----BEGIN SSH SIGNATURE-----\n "+base64.StdEncoding.EncodeToString(blob)+"\n -----END SSH SIGNATURE-----", 1)
	}
	if _, err := c.VerifyCommit([]byte(resign(blob(raw)))); err != nil {
		t.Fatalf("the same signature, differently wrapped: %v", err)
	}
	tree := raw[:strings.Index(raw, "\n")+1]
	for name, tt := range map[string]struct{ raw, want string }{
		"empty":                         {"", "no empty line"},
		"no end of headers":             {strings.TrimRight(raw[:strings.Index(raw, "\n\n")+1], "\n"), "no empty line"},
		"unsigned":                      {strings.Replace(raw, sig(raw)+"\n", "", 1), "not signed"},
		"message changed":               {strings.Replace(raw, "change", "chance", 1), "signature of alice"},
		"body appended":                 {raw + "x", "signature of alice"},
		"author changed":                {strings.Replace(raw, "author Alice", "author Mallo", 1), "signature of alice"},
		"tree changed":                  {strings.Replace(raw, "tree 4", "tree 5", 1), "signature of alice"},
		"signature of another commit":   {strings.Replace(raw, sig(raw), sig(second), 1), "signature of alice"},
		"two signatures":                {strings.Replace(raw, sig(raw), sig(raw)+"\n"+sig(raw), 1), `"gpgsig" occurs twice`},
		"two signatures, one other's":   {strings.Replace(raw, sig(raw), sig(second)+"\n"+sig(raw), 1), `"gpgsig" occurs twice`},
		"two trees":                     {tree + raw, "occurs twice"},
		"two trees, one hidden at last": {strings.Replace(raw, "\n\n", "\n"+strings.TrimSpace(tree)+"\n\n", 1), "occurs twice"},
		"tree first missing":            {raw[len(tree):], "out of order"},
		"parent after committer":        {strings.Replace(raw, "gpgsig ", "parent 4b825dc642cb6eb9a060e54bf8d69288fbee4904\ngpgsig ", 1), "out of order"},
		"two committers":                {strings.Replace(raw, "gpgsig ", "committer Eve <e@e> 1 +0000\ngpgsig ", 1), "occurs twice"},
		"unknown header added":          {strings.Replace(raw, "gpgsig ", "x-note hello\ngpgsig ", 1), "signature of alice"},
		"gpgsig-sha256":                 {strings.Replace(raw, "gpgsig ", "gpgsig-sha256 ", 1), "SHA-256"},
		"header without value":          {strings.Replace(raw, "gpgsig ", "gpgsig\n ", 1), "header line"},
		"starts with a continuation":    {" " + raw, "header line"},
		"NUL in a header":               {strings.Replace(raw, "Alice", "Ali\x00e", 1), "NUL"},
		"carriage returns":              {strings.ReplaceAll(raw, "\n", "\r\n"), "no empty line"},
		"committer without time":        {strings.Replace(raw, "committer Alice <alice@example.com> 1715774400 +0000", "committer Alice", 1), "committer line"},
		"too large":                     {raw + strings.Repeat("x", 1<<20), "larger than"},
		"OpenPGP":                       {strings.Replace(raw, sig(raw), "gpgsig -----BEGIN PGP SIGNATURE-----\n \n iQ==\n -----END PGP SIGNATURE-----", 1), "signed with OpenPGP"},
		"X.509":                         {strings.Replace(raw, sig(raw), "gpgsig -----BEGIN SIGNED MESSAGE-----\n iQ==\n -----END SIGNED MESSAGE-----", 1), "S/MIME"},
		"not a signature":               {strings.Replace(raw, sig(raw), "gpgsig hello", 1), "not between"},
		"bad base64":                    {strings.Replace(raw, sig(raw), "gpgsig -----BEGIN SSH SIGNATURE-----\n !\n -----END SSH SIGNATURE-----", 1), "base64"},
		"no magic":                      {resign([]byte("XSHSIG")), "SSHSIG"},
		"truncated":                     {resign(blob(raw)[:60]), "SSH signature"},
		"bytes behind":                  {resign(append(blob(raw), 0)), "SSH signature"},
		"version 2":                     {resign(bytes.Replace(blob(raw), []byte("SSHSIG\x00\x00\x00\x01"), []byte("SSHSIG\x00\x00\x00\x02"), 1)), "version 2"},
		"namespace file":                {resign(bytes.Replace(blob(raw), []byte("\x00\x00\x00\x03git"), []byte("\x00\x00\x00\x04file"), 1)), `namespace "file"`},
		"other hash":                    {resign(bytes.Replace(blob(raw), []byte("sha512"), []byte("sha256"), 1)), "signature of alice"},
		"unknown hash":                  {resign(bytes.Replace(blob(raw), []byte("sha512"), []byte("sha999"), 1)), `hash "sha999"`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.VerifyCommit([]byte(tt.raw))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q", err, tt.want)
			}
		})
	}
}

// A signature that alice made for a file, or an e-mail, signs no commit.
func TestSignatureOfOtherNamespaceIsNoCommitSignature(t *testing.T) {
	r := newRepo(t)
	key := r.key("alice", "-t", "ed25519")
	raw := string(r.commit(key, may))
	at, end := strings.Index(raw, "gpgsig "), strings.Index(raw, "\n\n")
	unsigned := raw[:at] + raw[end+1:]
	file := filepath.Join(r.dir, "payload")
	if err := os.WriteFile(file, []byte(unsigned), 0o600); err != nil {
		t.Fatal(err)
	}
	c := commits(t, r.signers("alice "+r.public(key)))
	for namespace, ok := range map[string]bool{"git": true, "file": false} {
		os.Remove(file + ".sig")
		r.run("ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", key, file)
		armored, err := os.ReadFile(file + ".sig")
		if err != nil {
			t.Fatal(err)
		}
		forged := raw[:at] + "gpgsig " + strings.ReplaceAll(strings.TrimSpace(string(armored)), "\n", "\n ") + raw[end:]
		if _, err := c.VerifyCommit([]byte(forged)); (err == nil) != ok {
			t.Errorf("namespace %s: %v", namespace, err)
		}
	}
}

func TestSignersFileThatIsBroken(t *testing.T) {
	r := newRepo(t)
	k := r.public(r.key("alice", "-t", "ed25519"))
	weak := r.public(r.key("weak", "-t", "rsa", "-b", "1024"))
	for name, tt := range map[string]struct{ text, want string }{
		"empty":                 {"", "names nobody"},
		"comments only":         {"# nobody\n", "names nobody"},
		"no key":                {"\n\nalice", ":3: want"},
		"key missing":           {"alice ssh-ed25519", ":1: want"},
		"key damaged":           {"alice " + k[:len(k)-8], ":1: want"},
		"key of other type":     {"alice " + strings.Replace(k, "ssh-ed25519", "ssh-rsa", 1), ":1: want"},
		"open quote":            {`"alice ` + k, ":1: want"},
		"text behind quote":     {`"alice"bob ` + k, ":1: want"},
		"empty principals":      {`"" ` + k, "oddly quoted"},
		"certificate authority": {"alice cert-authority " + k, "cert-authority is not supported"},
		"CA among others":       {`alice namespaces="git",cert-authority ` + k, "cert-authority is not supported"},
		"unknown option":        {"alice restrict " + k, `unknown option "restrict"`},
		"bad time":              {`alice valid-after="2024-01-01" ` + k, "want YYYYMMDD"},
		"impossible time":       {`alice valid-after="20241301" ` + k, "want YYYYMMDD"},
		"end before beginning":  {`alice valid-after="20240601Z",valid-before="20240101Z" ` + k, "before the beginning"},
		"value without quotes":  {`alice valid-after=20240601Z ` + k, "double quotes"},
		"weak RSA":              {"alice " + weak, "1024 bits"},
		"too large":             {strings.Repeat("#\n", 1<<20), "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			file := r.signers(tt.text)
			_, err := signing.NewCommits(file)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), file) {
				t.Errorf("error = %v, want %q and the file's name", err, tt.want)
			}
		})
	}
	if _, err := signing.NewCommits(filepath.Join(t.TempDir(), "absent")); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("absent file: %v", err)
	}
}
