//go:build linux

package daemon

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/filestore"
	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/internal/wall"
)

// windowFile is a [wall.WindowStore] in a file. It is good for one boot and one network: for
// the table that the daemon has left. So it need not survive a loss of power. If others can
// change the file, it is not used: its windows would be opened when a set is made anew.
//
// The file has a line that says what it is of, then entries, then a checksum of all. An entry
// is a number: 0 is the end, 1 a text, and 2 a window. Windows name their door and opener by
// the place of the text that has both.
type windowFile struct{ path string }

const (
	endEntry = iota
	textEntry
	windowEntry
)

// maxKeptText is the longest text: the name of a door and an opener.
const maxKeptText = 1 << 10

// errDamaged says that the file is not as Save has written it.
var errDamaged = errors.New("the file is damaged")

// Save implements [wall.WindowStore].
func (f windowFile) Save(table string, generation uint32, windows iter.Seq[wall.KeptWindow]) (err error) {
	first, err := of(table)
	if err != nil {
		return err
	}
	next := f.path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a daemon that was killed
		return err
	}
	file, err := filestore.OpenRegular(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(next)
		}
	}()
	if err := errors.Join(write(file, fmt.Sprintf("%s%d\n", first, generation), windows), file.Close()); err != nil {
		return err
	}
	return os.Rename(next, f.path)
}

func write(to io.Writer, first string, windows iter.Seq[wall.KeptWindow]) error {
	sum := crc32.NewIEEE()
	w := bufio.NewWriterSize(io.MultiWriter(to, sum), 64<<10)
	w.WriteString(first) // an error stays, and Flush returns it
	texts := map[doorAndOpener]uint64{}
	clock := newClock()
	var b []byte
	for win := range windows {
		of := doorAndOpener{win.Door, win.Opener}
		place, known := texts[of]
		if !known {
			place = uint64(len(texts))
			texts[of] = place
			text := win.Door + "\n" + win.Opener
			b = binary.AppendUvarint(append(b[:0], textEntry), uint64(len(text)))
			w.Write(append(b, text...))
		}
		now := clock.now()
		address := win.Source.Addr().AsSlice()
		b = binary.AppendUvarint(append(b[:0], windowEntry), place)
		b = append(append(b, byte(len(address))), address...)
		b = append(b, byte(win.Source.Bits()))
		b = binary.AppendUvarint(b, uint64(win.Source.Link))
		b = binary.AppendUvarint(b, uint64(now+win.Left))
		b = binary.AppendVarint(b, int64(now-win.Age))
		w.Write(b)
	}
	w.WriteByte(endEntry)
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := to.Write(sum.Sum(nil))
	return err
}

// Load implements [wall.WindowStore].
func (f windowFile) Load(table string, isCurrent func(uint32) bool, take func(wall.KeptWindow)) (bool, error) {
	first, err := of(table)
	if err != nil {
		return false, err
	}
	file, err := filestore.OpenRegular(f.path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close()
	r := &windowReader{Reader: bufio.NewReaderSize(file, 64<<10)}
	line, _ := r.ReadString('\n')
	rest, ok := strings.CutPrefix(line, first)
	var generation uint32
	if _, err := fmt.Sscanf(rest, "%d\n", &generation); !ok || err != nil || !isCurrent(generation) {
		return false, nil
	}
	if err := check(file); err != nil { // before any of it is used
		return false, err
	}
	if _, err := file.Seek(int64(len(line)), io.SeekStart); err != nil {
		return false, err
	}
	r.Reset(file)
	err = r.windows(take)
	return err == nil, err
}

// check reports whether the file ends with its checksum.
func check(file *os.File) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	var want [crc32.Size]byte
	length := info.Size() - crc32.Size
	if length < 0 {
		return errDamaged
	}
	sum := crc32.NewIEEE()
	if _, err := io.Copy(sum, io.NewSectionReader(file, 0, length)); err != nil {
		return err
	}
	if _, err := file.ReadAt(want[:], length); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(want[:]) != sum.Sum32() {
		return errDamaged
	}
	return nil
}

// windowReader reads entries.
type windowReader struct {
	*bufio.Reader
	b   [16]byte
	err error // the first one
}

// bytes reads at most 16 bytes. They are valid until the next are read.
func (r *windowReader) bytes(n int) []byte {
	_, err := io.ReadFull(r.Reader, r.b[:n])
	r.note(err)
	return r.b[:n]
}

func (r *windowReader) byte() byte {
	b, err := r.ReadByte()
	r.note(err)
	return b
}

func (r *windowReader) uvarint() uint64 {
	n, err := binary.ReadUvarint(r.Reader)
	r.note(err)
	return n
}

func (r *windowReader) varint() int64 {
	n, err := binary.ReadVarint(r.Reader)
	r.note(err)
	return n
}

func (r *windowReader) text() string {
	n := r.uvarint()
	if r.err != nil || n > maxKeptText {
		r.note(errDamaged)
		return ""
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r.Reader, b)
	r.note(err)
	return string(b)
}

func (r *windowReader) note(err error) {
	if r.err == nil && err != nil {
		r.err = errDamaged
	}
}

type doorAndOpener struct{ door, opener string }

// windows calls take with the windows that have time left.
func (r *windowReader) windows(take func(wall.KeptWindow)) error {
	var texts []doorAndOpener
	clock := newClock()
	for r.err == nil {
		switch r.byte() {
		case textEntry:
			door, opener, _ := strings.Cut(r.text(), "\n")
			texts = append(texts, doorAndOpener{door, opener})
		case windowEntry:
			place := r.uvarint()
			length := int(r.byte())
			if length != 4 && length != 16 || place >= uint64(len(texts)) {
				return errDamaged
			}
			addr, _ := netip.AddrFromSlice(r.bytes(length))
			source := packet.Source{Prefix: netip.PrefixFrom(addr, int(r.byte()))}
			source.Link = uint32(r.uvarint())
			until, granted := time.Duration(r.uvarint()), time.Duration(r.varint())
			now := clock.now()
			if r.err == nil && source.IsValid() && until > now {
				take(wall.KeptWindow{Door: texts[place].door, Source: source, Opener: texts[place].opener, Left: until - now, Age: now - granted})
			}
		case endEntry:
			return r.err
		default:
			return errDamaged
		}
	}
	return r.err
}

// Forget implements [wall.WindowStore].
func (f windowFile) Forget() error {
	if err := os.Remove(f.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// of returns the beginning of a file with windows of a table, in this boot and this network.
func of(table string) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	network, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("knockwall windows 1 %s %s %s ", strings.TrimSpace(string(boot)), network, table), nil
}

// bootClock tells the time on the clock that the kernel's timeouts follow, which all processes
// of a boot share. It asks the kernel once.
type bootClock struct {
	begun  time.Time
	before time.Duration // on that clock
}

func newClock() bootClock {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // it cannot fail
	return bootClock{time.Now(), time.Duration(t.Nano())}
}

func (c bootClock) now() time.Duration { return c.before + time.Since(c.begun) }
