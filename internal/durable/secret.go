package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ReadSecret is Read for a file that its owner has put there and that holds a
// secret: a password, a token, a private key. A file that every user of the
// machine may read, that somebody else may change, or that belongs to somebody
// else is refused, with what to do. Its group may read it.
func ReadSecret(path string, most int64) ([]byte, error) {
	if err := CheckSecret(path); err != nil {
		return nil, err
	}
	return Read(path, most)
}

// CheckSecret is what ReadSecret checks, for those whose library reads the file.
func CheckSecret(path string) error {
	info, err := os.Stat(path) // of what a link names: whoever could exchange that, could exchange the file
	if err != nil {
		return err
	}
	owner, known := info.Sys().(*syscall.Stat_t)
	mode := info.Mode()
	switch {
	case !mode.IsRegular():
		return &fs.PathError{Op: "read secret", Path: path, Err: errors.New("not a file")}
	case mode.Perm()&0o007 != 0:
		return fmt.Errorf("%s holds a secret and every user may use it (mode %04o): take that away (chmod o= %s), and change the secret if others can have seen it", path, mode.Perm(), path)
	case mode.Perm()&0o020 != 0:
		return fmt.Errorf("%s holds a secret and its group may change it (mode %04o): chmod g-w %s", path, mode.Perm(), path)
	case known && owner.Uid != 0 && int(owner.Uid) != os.Geteuid():
		return fmt.Errorf("%s holds a secret and belongs to user %d, want 0 or %d: chown it", path, owner.Uid, os.Geteuid())
	}
	return nil
}
