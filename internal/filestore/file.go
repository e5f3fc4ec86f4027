package filestore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/knockwall/knockwall/internal/durable"
)

// The format of the file is in record.go.

// newSuffix makes the name of the new file that is to replace the store's file.
const newSuffix = ".new"

// load reads the file, or makes it if there is none, and leaves it ready for the next
// record.
func (l *Store) load() error {
	folder, err := os.Open(filepath.Dir(l.path))
	if err != nil {
		return err
	}
	l.folder = folder
	// A process that was killed while it wrote the new file has left it.
	if err := os.Remove(l.path + newSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	file, err := OpenRegular(l.path, os.O_RDWR)
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
		return fmt.Errorf("it has %d bytes, more than %d: it is not a store of knockwall", info.Size(), maxFile)
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
		// Entries were added until the file was last written, whatever the clock says
		// now.
		now := max(time.Now().Unix(), info.ModTime().Unix())
		l.damaged = strconv.FormatInt(now, 10)
	}
	// The last writer may have been killed before the disk had the last record, the file
	// itself, or its replacement.
	if err := errors.Join(durable.Sync(l.file), durable.Sync(l.folder)); err != nil {
		return err
	}
	switch {
	case l.found != "" || content.old:
		// Nothing can be appended to a damaged or old file. If replacing it fails, each
		// change tries again.
		l.failed = l.replace(l.All())
	case l.records > l.Len():
		l.compact()
		return l.failed
	}
	return nil
}

// begin makes an empty file.
func (l *Store) begin() error {
	file, err := OpenRegular(l.path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
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

// write appends records to the file, all with one sync. After an error the file is as it
// was, or takes no more records: a record after half a record would be lost with it.
func (l *Store) write(changes ...record) error {
	var lines []byte
	sum := l.sum
	for _, c := range changes {
		lines, sum = appendRecord(lines, sum, c)
	}
	if l.size+int64(len(lines))+lenEnd > maxFile {
		return l.writeAnew(changes)
	}
	_, err := l.file.WriteAt(appendEnd(lines, sum), l.size)
	if err == nil {
		err = durable.Sync(l.file)
	}
	if err != nil {
		if undone := l.cutOff(); undone != nil {
			l.failed = errors.Join(err, undone)
		}
		return err
	}
	l.size += int64(len(lines))
	l.sum = sum
	l.records += len(changes)
	return nil
}

// writeAnew makes changes whose records have no room, by replacing the file with one
// without dead records.
func (l *Store) writeAnew(changes []record) error {
	entries := l.All()
	for _, c := range changes {
		entries = slices.DeleteFunc(entries, func(e string) bool { return e == c.entry })
		if c.kind == added {
			entries = append(entries, c.entry)
		}
	}
	return l.replace(entries)
}

// compactIfDue removes dead records if there are many. If that fails, nothing is lost,
// and it is tried again after as many more.
func (l *Store) compactIfDue() {
	if l.excess() <= l.bearable {
		return
	}
	l.compact()
	l.bearable = maxDead + max(l.excess(), 0)
}

// excess returns by how many dead records outnumber live ones.
func (l *Store) excess() int {
	return l.records - 2*l.Len()
}

// compact replaces the file with one without dead records. If that fails the old file is
// as good as before. So this is no error: a full disk must not keep knockwall from
// starting.
func (l *Store) compact() {
	_ = l.replace(l.All())
}

// replace replaces the store's file with one that has these entries. After an error the
// old file is in use, or, if it is not known which of the two the disk has, neither takes
// any more records.
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

// writeNew writes a file. It is on stable storage when writeNew returns.
func writeNew(path string, data []byte) (*os.File, error) {
	err := os.Remove(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	file, err := OpenRegular(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
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

// closeFiles closes all open files, the lock last.
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
