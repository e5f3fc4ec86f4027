package filestore

import "os"

// The bounds that the tests check.
const (
	MaxFile = maxFile
	MaxDead = maxDead
)

// Swap makes the store write to another file, and returns the former file.
func (l *Store) Swap(file *os.File) *os.File {
	l.writing.Lock()
	defer l.writing.Unlock()
	former := l.file
	l.file = file
	return former
}

// Encode returns a file of records, each of its kind and entry.
func Encode(lines ...string) string {
	var records []record
	for _, line := range lines {
		records = append(records, record{line[0], line[1:]})
	}
	file, _ := encode(records)
	return string(file)
}
