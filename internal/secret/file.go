package secret

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/knockwall/knockwall/internal/ownership"
)

// maxFileSize is the maximum size in bytes. A longer key would not be stronger.
const maxFileSize = 4096

// ReadFile reads a secret of 1 to 4096 bytes from a file that has nothing else, except
// one newline at its end. It refuses a file that users outside its group can read, write
// or execute, or that its group can write. On Windows it does not check permissions.
// Errors have the path of the file, and never its content. They wrap the errors of
// package io/fs.
func ReadFile(path string) (Secret, error) {
	b, err := read(path)
	if err != nil {
		return Secret{}, fmt.Errorf("reading a secret: %w", err)
	}
	return New(b), nil
}

// read returns the key in a file.
func read(path string) ([]byte, error) {
	// Opening a pipe without O_NONBLOCK would block until there is a writer.
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
		return nil, fmt.Errorf("%s is not a regular file: copy the secret into one", path)
	case mode&0o007 != 0:
		return nil, fmt.Errorf("%s is open to everybody on this host: run chmod o= %[1]s, and change the secret if somebody may have read it", path)
	case mode&0o020 != 0:
		return nil, fmt.Errorf("the group of %s can write it: run chmod g-w %[1]s", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFileSize {
		return nil, fmt.Errorf("%s has more than %d bytes, too many for a secret: name another file", path, maxFileSize)
	}
	if line, found := bytes.CutSuffix(b, []byte("\n")); found {
		b = bytes.TrimSuffix(line, []byte("\r"))
	}
	switch {
	case len(b) == 0:
		return nil, fmt.Errorf("%s is empty: write the secret to it, on one line", path)
	case bytes.IndexByte(b, 0) >= 0:
		return nil, fmt.Errorf("%s has a NUL byte, which a secret cannot have: write another secret to it, on one line", path)
	}
	return b, nil
}
