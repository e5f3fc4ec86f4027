//go:build unix

package secret_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/knockwall/knockwall/internal/secret"
)

// write makes a file with this mode.
func write(t *testing.T, text string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "opening.key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // the umask does not apply to chmod
		t.Fatal(err)
	}
	return path
}

func TestReadFileCutsOneNewline(t *testing.T) {
	for text, want := range map[string]string{
		"hipjazz":                 "hipjazz",
		"hipjazz\n":               "hipjazz",
		"hipjazz\r\n":             "hipjazz",
		"hipjazz\n\n":             "hipjazz\n",
		"hipjazz\r":               "hipjazz\r",
		"hipjazz\n\r":             "hipjazz\n\r",
		"hipjazz\r\r\n":           "hipjazz\r",
		" hip\njazz \n":           " hip\njazz ",
		"\xff\xfe\n":              "\xff\xfe",
		strings.Repeat("x", 4096): strings.Repeat("x", 4096),
	} {
		s, err := secret.ReadFile(write(t, text, 0o600))
		if err != nil || string(s.Key()) != want {
			t.Errorf("%q is read as %q: %v", text, s.Key(), err)
		}
	}
}

func TestReadFileTakesModesThatKeepTheSecret(t *testing.T) {
	for _, mode := range []fs.FileMode{0o400, 0o600, 0o440, 0o640, 0o700, 0o750} {
		if _, err := secret.ReadFile(write(t, "hipjazz\n", mode)); err != nil {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestReadFileSaysHowToMendModes(t *testing.T) {
	open := "reading a secret: %s is open to everybody on this host: run chmod o= %[1]s, and change the secret if somebody may have read it"
	group := "reading a secret: the group of %s can write it: run chmod g-w %[1]s"
	for mode, want := range map[fs.FileMode]string{
		0o644: open, 0o604: open, 0o602: open, 0o601: open, 0o666: open, 0o777: open,
		0o660: group, 0o620: group,
	} {
		path := write(t, "hipjazz\n", mode)
		if _, err := secret.ReadFile(path); err == nil || err.Error() != fmt.Sprintf(want, path) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

func TestReadFileRefusesWhatIsNoSecretAndShowsNothingOfIt(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "reading a secret: %s is empty: write the secret to it, on one line",
		"\n":                             "reading a secret: %s is empty: write the secret to it, on one line",
		"\r\n":                           "reading a secret: %s is empty: write the secret to it, on one line",
		"qzqz\x00":                       "reading a secret: %s has a NUL byte, which a secret cannot have: write another secret to it, on one line",
		"\x00":                           "reading a secret: %s has a NUL byte, which a secret cannot have: write another secret to it, on one line",
		strings.Repeat("qzqz", 1025):     "reading a secret: %s has more than 4096 bytes, too many for a secret: name another file",
		strings.Repeat("q", 4096) + "\n": "reading a secret: %s has more than 4096 bytes, too many for a secret: name another file",
	} {
		path := write(t, text, 0o600)
		s, err := secret.ReadFile(path)
		if err == nil || err.Error() != fmt.Sprintf(want, path) {
			t.Errorf("%.8q: %v", text, err)
		}
		if s.IsSet() {
			t.Errorf("%.8q: there is a secret", text)
		}
	}
}

func TestReadFileReadsNothingButFiles(t *testing.T) {
	folder := t.TempDir()
	fifo := filepath.Join(folder, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(folder, "link")
	if err := os.Symlink(fifo, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{folder, fifo, link, "/dev/zero"} {
		want := fmt.Sprintf("reading a secret: %s is not a regular file: copy the secret into one", path)
		if _, err := secret.ReadFile(path); err == nil || err.Error() != want {
			t.Errorf("%s: %v", path, err)
		}
	}

	socket, err := net.Listen("unix", filepath.Join(folder, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if _, err := secret.ReadFile(socket.Addr().String()); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("a socket: %v", err)
	}
}

func TestReadFileFollowsALinkToAFile(t *testing.T) {
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(write(t, "hipjazz\n", 0o600), link); err != nil {
		t.Fatal(err)
	}
	if s, err := secret.ReadFile(link); err != nil || string(s.Key()) != "hipjazz" {
		t.Errorf("read as %q: %v", s.Key(), err)
	}
}

func TestReadFileErrorsCanBeToldApart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")
	_, err := secret.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that is not there: %v", err)
	}
	if os.Geteuid() == 0 {
		t.Skip("root may read any file")
	}
	path = write(t, "hipjazz\n", 0)
	if _, err := secret.ReadFile(path); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that may not be read: %v", err)
	}
}
