package filestore

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
)

// A file is a list of lines. The last one is the end line:
//
//	5a1c9e04+1764324000 otp ssh 6b1f…     an entry was added
//	0b2266d1-1764324000 otp ssh 6b1f…     an entry was removed
//	93ab1f70!1764324511                   damage was found, at this Unix time
//	c41d2e88=                             the end
//
// A line begins with a CRC-32C (RFC 3720, appendix B.4) in hexadecimal. It covers the
// checksum of the line before, as written there, and the rest of this line. So a changed
// line shows by its own checksum, a line that was taken away by the checksum of the next
// line, and missing lines at the end by the end line. The next record overwrites the end
// line.

// record is the content of a line other than the end line.
type record struct {
	kind  byte
	entry string
}

const (
	added   = '+'
	removed = '-'
	damaged = '!'
	end     = '='
)

const (
	lenSum = 8
	lenEnd = lenSum + 2 // its kind and the line end
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the checksum of a line, without its newline, after a line with the
// checksum before.
func checksum(before uint32, line []byte) uint32 {
	sum := crc32.Checksum(fmt.Appendf(nil, "%08x", before), castagnoli)
	return crc32.Update(sum, castagnoli, line)
}

// appendRecord appends the line of a record, and returns its checksum.
func appendRecord(b []byte, before uint32, r record) ([]byte, uint32) {
	line := append([]byte{r.kind}, r.entry...)
	sum := checksum(before, line)
	b = fmt.Appendf(b, "%08x", sum)
	return append(append(b, line...), '\n'), sum
}

// appendEnd appends the end line.
func appendEnd(b []byte, before uint32) []byte {
	return fmt.Appendf(b, "%08x%c\n", checksum(before, []byte{end}), end)
}

// encode returns the content of a file, and the checksum of the last record.
func encode(records []record) (file []byte, sum uint32) {
	for _, r := range records {
		file, sum = appendRecord(file, sum, r)
	}
	return appendEnd(file, sum), sum
}

// content is the result of reading a file.
type content struct {
	records []record // the undamaged records
	size    int64    // size of the file in bytes, without its end line
	sum     uint32   // checksum of the last record
	damage  string   // the damage to the file; empty if there is none
	old     bool     // an earlier version, which wrote no checksums, made it
}

// decode reads a file. It skips the damaged lines.
func decode(file []byte) (c content) {
	lines := bytes.SplitAfter(file, []byte{'\n'})
	lines = lines[:len(lines)-1] // the rest after the last newline is no line
	if len(lines) > 0 && (file[0] == added || file[0] == removed) {
		return decodeOld(lines)
	}
	ended := false
	for i, line := range lines {
		r, sum, err := parse(c.sum, line)
		switch {
		case err == nil && r.kind == end:
			ended = i == len(lines)-1
			continue
		case err == nil:
			c.records = append(c.records, r)
		case c.damage == "":
			c.damage = fmt.Sprintf("line %d: %v", i+1, err)
		}
		c.sum = sum
		c.size += int64(len(line))
	}
	if c.damage == "" && (!ended || c.size+lenEnd != int64(len(file))) {
		c.damage = "its end is missing"
	}
	return c
}

// parse reads a line. Even after an error the checksum is the one that the next line was
// made with, if it can be read.
func parse(before uint32, line []byte) (r record, sum uint32, err error) {
	line = bytes.TrimSuffix(line, []byte{'\n'})
	if len(line) <= lenSum || len(line) > lenSum+1+MaxEntry {
		return record{}, 0, fmt.Errorf("it has %d bytes, which no record has", len(line))
	}
	stated, err := strconv.ParseUint(string(line[:lenSum]), 16, 32)
	sum = uint32(stated)
	line = line[lenSum:]
	if err != nil || sum != checksum(before, line) {
		return record{}, sum, errors.New("it is not as it was written")
	}
	r = record{line[0], string(line[1:])}
	switch {
	case r.kind == added || r.kind == removed || r.kind == damaged:
		err = check(r.entry)
	case r.kind != end || r.entry != "":
		err = errors.New("it is of no kind that this version knows")
	}
	return r, sum, err
}

// decodeOld reads a file of an earlier version, which wrote no checksums. Its lines begin
// with + or -. Its last line has no newline if the daemon was killed while it wrote it.
func decodeOld(lines [][]byte) (c content) {
	c.old = true
	for i, line := range lines {
		r := record{line[0], string(line[1:max(len(line)-1, 1)])}
		if (r.kind == added || r.kind == removed) && check(r.entry) == nil {
			c.records = append(c.records, r)
		} else if c.damage == "" {
			c.damage = fmt.Sprintf("line %d: it is no record", i+1)
		}
	}
	return c
}
