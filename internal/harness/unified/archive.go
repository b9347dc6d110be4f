package unified

import (
	"bufio"
	"fmt"
	"io"
	"os"
)

// file is one of the initial file system, in its root.
type file struct {
	name    string
	source  string // path of the content; if empty, content is it
	content []byte
}

// writeArchive writes the initial file system in the form that Linux unpacks: cpio
// with the header that it calls newc. See Documentation/driver-api/early-userspace
// in its sources.
func writeArchive(path string, files []file) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	w := bufio.NewWriter(out)
	for i, f := range files {
		if f.source != "" {
			if f.content, err = os.ReadFile(f.source); err != nil {
				return err
			}
		}
		writeEntry(w, f.name, i+1, 0o100755, f.content)
	}
	writeEntry(w, "TRAILER!!!", 0, 0, nil)
	if err := w.Flush(); err != nil {
		return err
	}
	return out.Close()
}

// writeEntry writes one file; what goes wrong, Flush tells.
func writeEntry(w io.Writer, name string, inode, mode int, content []byte) {
	const header = 110 // bytes
	fmt.Fprint(w, "070701")
	for _, field := range []int{inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		fmt.Fprintf(w, "%08x", field)
	}
	fmt.Fprintf(w, "%s\x00", name)
	pad(w, header+len(name)+1)
	w.Write(content)
	pad(w, len(content))
}

// pad fills up to a multiple of four bytes.
func pad(w io.Writer, written int) {
	w.Write(make([]byte, -written&3))
}
