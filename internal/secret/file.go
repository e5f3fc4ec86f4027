package secret

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/knockwall/knockwall/internal/ownership"
)

// maxFileSize is in bytes, and ample: a key that is longer is no better.
const maxFileSize = 4096

// ReadFile reads a secret of 1 to 4096 bytes from a file that holds nothing else,
// but for one newline at its end, as editors leave it. It refuses a file that
// others than its owner and group may read, or others than its owner write. On Windows
// it does not look at who may. Errors name the file and never what is in it; those of
// package io/fs can be told by errors.Is.
func ReadFile(path string) (Secret, error) {
	b, err := read(path)
	if err != nil {
		return Secret{}, fmt.Errorf("reading a secret: %w", err)
	}
	return New(b), nil
}

// read returns the key in a file that is a secret's.
func read(path string) ([]byte, error) {
	// To open a pipe without O_NONBLOCK would be to wait for ever.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch mode := ownership.Mode(info); {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a file: copy the secret into one", path)
	case mode&0o007 != 0:
		return nil, fmt.Errorf("%s is open to everybody on this host: run chmod o= %[1]s, and change the secret if somebody may have read it", path)
	case mode&0o020 != 0:
		return nil, fmt.Errorf("the group of %s may change it: run chmod g-w %[1]s", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFileSize {
		return nil, fmt.Errorf("%s has more than %d bytes, and is no secret's: name another file", path, maxFileSize)
	}
	if line, found := bytes.CutSuffix(b, []byte("\n")); found {
		b = bytes.TrimSuffix(line, []byte("\r"))
	}
	switch {
	case len(b) == 0:
		return nil, fmt.Errorf("%s is empty: write the secret there, on one line", path)
	case bytes.IndexByte(b, 0) >= 0:
		return nil, fmt.Errorf("%s has a NUL byte, which no secret may have: write another one there, on one line", path)
	}
	return b, nil
}
