package durable

import (
	"errors"
	"io/fs"
	"os"
)

// Create writes a file that must not exist yet, with exactly this mode, and syncs
// it. The directory is not synced: see SyncDir.
func Create(path string, data []byte, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Chmod(mode), file.Sync(), file.Close())
}
