package ledger

import (
	"bytes"
	"errors"
	"io"
)

// journalMagic starts the file.
const journalMagic = "TMTWINS1"

// contents is what could be read of a journal.
type contents struct {
	latest map[string]record // the last record of each module, "" is the device
	schema map[string]record // the last of them that has the schema of reported
	marks                    // the highest of any record
	end    int64             // where the next record goes
	size   int64             // of the file
	lost   int64             // bytes that are no record and no write that was cut off
}

// scanJournal reads a journal of any content. Damage does not end it: it goes on
// with the next record behind it. An error is one of reading the file.
func scanJournal(file io.ReaderAt, size int64) (contents, error) {
	c := contents{latest: map[string]record{}, schema: map[string]record{}, size: size}
	head := make([]byte, len(journalMagic))
	if n, err := file.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return c, err
	} else if n == len(head) && string(head) == journalMagic {
		c.end = int64(n)
	}
	damaged := c.end == 0 && size > 0
	at := c.end
	for {
		r, next, err := readRecord(file, at, size)
		if err != nil {
			return c, err
		}
		if next > 0 {
			c.latest[r.module] = r
			c.high, c.floor = max(c.high, r.high), max(c.floor, r.floor)
			if r.schema {
				c.schema[r.module] = r
			}
			at, c.end = next, next
			continue
		}
		found, err := findRecord(file, at+1, size)
		if err != nil {
			return c, err
		}
		if found < 0 {
			break
		}
		c.lost += found - at
		at = found
	}
	cut, err := cutOff(file, at, size)
	if err != nil {
		return c, err
	}
	if !cut {
		c.lost += size - at
	}
	if damaged {
		c.lost = max(c.lost, 1)
	}
	return c, nil
}

// readRecord reads the record at an offset; next is where the one after it
// starts, 0 when there is none here.
func readRecord(file io.ReaderAt, at, size int64) (r record, next int64, err error) {
	if at+recordHeader > size {
		return record{}, 0, nil
	}
	header := make([]byte, recordHeader)
	if _, err := file.ReadAt(header, at); err != nil {
		return record{}, 0, err
	}
	n, ok := recordLength(header)
	if !ok || at+recordHeader+int64(n) > size {
		return record{}, 0, nil
	}
	body := make([]byte, n)
	if _, err := file.ReadAt(body, at+recordHeader); err != nil && n > 0 {
		return record{}, 0, err
	}
	if r, ok = splitRecord(header, body); !ok {
		return record{}, 0, nil
	}
	return r, at + recordHeader + int64(n), nil
}

// findRecord returns where the next whole record starts, -1 when there is none.
func findRecord(file io.ReaderAt, at, size int64) (int64, error) {
	chunk := make([]byte, 64<<10)
	for at < size {
		n, err := file.ReadAt(chunk[:min(int64(len(chunk)), size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return -1, err
		}
		i := bytes.Index(chunk[:n], recordMagic)
		if i < 0 {
			at += int64(max(1, n-len(recordMagic)+1))
			continue
		}
		at += int64(i)
		if _, next, err := readRecord(file, at, size); err != nil || next > 0 {
			return at, err
		}
		at++
	}
	return -1, nil
}

// cutOff reports whether what is left at the end of the file, where no record
// follows any more, is nothing but space or a write that was cut off. Such a
// write was never acknowledged. Anything else was a record once.
func cutOff(file io.ReaderAt, at, size int64) (bool, error) {
	left := size - at
	if left <= 0 {
		return true, nil
	}
	rest := make([]byte, min(left, recordHeader+maxRecord))
	if _, err := file.ReadAt(rest, at); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	written := bytes.TrimRight(rest, "\x00")
	if len(written) < recordHeader {
		return bytes.HasPrefix(written, recordMagic) || bytes.HasPrefix(recordMagic, written), nil
	}
	n, ok := recordLength(rest)
	if !ok {
		return false, nil
	}
	if int64(recordHeader+n) > left {
		return true, nil
	}
	return bytes.IndexByte(payloadOf(rest[recordHeader:recordHeader+n]), 0) >= 0, nil
}

// payloadOf is the payload of a record's body that may be damaged.
func payloadOf(body []byte) []byte {
	if len(body) < recordFixed {
		return nil
	}
	return body[min(len(body), recordFixed+int(body[recordFixed-1])):]
}
