package filestore

import "os"

// The bounds that the tests are about.
const (
	MaxFile = maxFile
	MaxDead = maxDead
)

// Swap has the ledger write to another file, and returns the one it wrote to.
func (l *Store) Swap(file *os.File) *os.File {
	l.writing.Lock()
	defer l.writing.Unlock()
	former := l.file
	l.file = file
	return former
}

// Encode makes a file of records, each of its kind and entry.
func Encode(lines ...string) string {
	var records []record
	for _, line := range lines {
		records = append(records, record{line[0], line[1:]})
	}
	file, _ := encode(records)
	return string(file)
}
