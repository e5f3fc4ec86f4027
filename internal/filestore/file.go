package filestore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/knockwall/knockwall/internal/durable"
)

// The format of the file is in record.go.

// newSuffix makes the name of a file that is to take the place of the ledger's.
const newSuffix = ".new"

// load reads the file, which is made if there is none, and leaves it ready for the
// next record.
func (l *Store) load() error {
	folder, err := os.Open(filepath.Dir(l.path))
	if err != nil {
		return err
	}
	l.folder = folder
	// Of who was killed while it wrote it.
	if err := os.Remove(l.path + newSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	file, err := openRegular(l.path, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		return l.begin()
	}
	if err != nil {
		return err
	}
	l.file = file
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() > maxFile {
		return fmt.Errorf("it has %d bytes, more than %d: it is no ledger of knockwall's", info.Size(), maxFile)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(file, data); err != nil {
		return err
	}
	content := decode(data)
	for _, r := range content.records {
		switch r.kind {
		case added:
			l.put(r.entry)
		case removed:
			l.take(r.entry)
		case damaged:
			l.damaged = r.entry
		}
	}
	l.records, l.size, l.sum, l.found = len(content.records), content.size, content.sum, content.damage
	if l.found != "" {
		// Whatever the clock says now, entries were added until the file was last written.
		now := max(time.Now().Unix(), info.ModTime().Unix())
		l.damaged = strconv.FormatInt(now, 10)
	}
	// Whoever wrote it may have been killed before the disk had it, be it the last record,
	// the file itself, or another in its place.
	if err := errors.Join(durable.Sync(l.file), durable.Sync(l.folder)); err != nil {
		return err
	}
	switch {
	case l.found != "" || content.old:
		// Nothing can be appended to what is there: until this can be done, each change
		// tries it again.
		l.failed = l.replace(l.All())
	case l.records > l.Len():
		l.compact()
		return l.failed
	}
	return nil
}

// begin makes the file, with nothing in it.
func (l *Store) begin() error {
	file, err := openRegular(l.path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	l.file = file
	if err := l.cutOff(); err != nil {
		return errors.Join(err, os.Remove(l.path))
	}
	return durable.Sync(l.folder)
}

// cutOff ends the file after the last whole record.
func (l *Store) cutOff() error {
	end := appendEnd(nil, l.sum)
	if _, err := l.file.WriteAt(end, l.size); err != nil {
		return err
	}
	if err := l.file.Truncate(l.size + int64(len(end))); err != nil {
		return err
	}
	return durable.Sync(l.file)
}

// write puts a record into the file. After an error the file is as it was, or takes
// no more records: one that came after half of another would be lost with it.
func (l *Store) write(kind byte, entry string) error {
	record, sum := appendRecord(nil, l.sum, record{kind, entry})
	if l.size+int64(len(record))+lenEnd > maxFile {
		return l.writeAnew(kind, entry)
	}
	_, err := l.file.WriteAt(appendEnd(record, sum), l.size)
	if err == nil {
		err = durable.Sync(l.file)
	}
	if err != nil {
		if undone := l.cutOff(); undone != nil {
			l.failed = errors.Join(err, undone)
		}
		return err
	}
	l.size += int64(len(record))
	l.sum = sum
	l.records++
	return nil
}

// writeAnew makes a change for whose record there is no room, by a file without the
// records that no longer count.
func (l *Store) writeAnew(kind byte, entry string) error {
	var entries []string
	for _, e := range l.All() {
		if e != entry {
			entries = append(entries, e)
		}
	}
	if kind == added {
		entries = append(entries, entry)
	}
	return l.replace(entries)
}

// compactIfDue removes records that no longer count, if there are many. If that
// fails, nothing is lost, and it is tried again after as many more.
func (l *Store) compactIfDue() {
	if l.excess() <= l.bearable {
		return
	}
	l.compact()
	l.bearable = maxDead + max(l.excess(), 0)
}

// excess is by how many the records that no longer count outnumber those that do.
func (l *Store) excess() int {
	return l.records - 2*l.Len()
}

// compact writes the file anew, without the records that no longer count. It is as
// good as before if that fails, so that this is no error: a disk that is full has
// to keep no knockwall from beginning.
func (l *Store) compact() {
	_ = l.replace(l.All())
}

// replace puts a file with these entries in place of the ledger's. After an error
// the old one is in use, or, when it is not known which of the two the disk has,
// none takes any more records.
func (l *Store) replace(entries []string) error {
	var records []record
	if l.damaged != "" {
		records = append(records, record{damaged, l.damaged})
	}
	for _, e := range entries {
		records = append(records, record{added, e})
	}
	data, sum := encode(records)
	if len(data) > maxFile {
		return fmt.Errorf("it is full: it would have %d bytes, more than %d", len(data), maxFile)
	}
	file, err := writeNew(l.path+newSuffix, data)
	if err != nil {
		return err
	}
	if err := os.Rename(file.Name(), l.path); err != nil {
		file.Close()
		return err
	}
	l.file.Close() // it has no name any more
	l.file, l.size, l.sum, l.records = file, int64(len(data)-lenEnd), sum, len(records)
	l.failed = durable.Sync(l.folder)
	return l.failed
}

// writeNew writes a file that is on stable storage when it returns.
func writeNew(path string, data []byte) (*os.File, error) {
	err := os.Remove(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	file, err := openRegular(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	_, err = file.Write(data)
	if err == nil {
		err = durable.Sync(file)
	}
	if err != nil {
		file.Close()
		return nil, errors.Join(err, os.Remove(path)) // a full disk needs the room
	}
	return file, nil
}

// closeFiles closes what is open, the lock last.
func (l *Store) closeFiles() error { return errors.Join(l.closeFile(), release(l.lock)) }

// closeFile closes the file and its folder.
func (l *Store) closeFile() error {
	var errs []error
	for _, file := range []*os.File{l.file, l.folder} {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	return errors.Join(errs...)
}
