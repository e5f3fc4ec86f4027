//go:build linux

package ownership

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// place makes a folder with a file in it, and returns both.
func place(t *testing.T) (folder, file string) {
	t.Helper()
	folder = filepath.Join(t.TempDir(), "folder")
	file = filepath.Join(folder, "file")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return folder, file
}

func chmod(t *testing.T, path string, mode uint32) {
	t.Helper()
	if err := syscall.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestModes(t *testing.T) {
	for _, test := range []struct {
		folder, file  uint32
		kind          Kind
		wrong, mended string // with the path that is wrong, as a suffix
	}{
		{0o755, 0o644, File, "", ""},
		{0o750, 0o640, File, "", ""},
		{0o2750, 0o640, File, "", ""},
		{0o755, 0o646, File, "folder/file", "chmod go-w"},
		{0o755, 0o666, List, "folder/file", "chmod go-w"},
		{0o777, 0o644, File, "folder", "chmod go-w"},
		{0o1777, 0o644, File, "", ""},
	} {
		folder, file := place(t)
		chmod(t, folder, test.folder)
		chmod(t, file, test.file)
		err := Check(file, test.kind)
		switch {
		case test.wrong == "":
			if err != nil {
				t.Errorf("%o and %o: %v", test.folder, test.file, err)
			}
		case err == nil || !strings.Contains(err.Error(), filepath.Join(filepath.Dir(folder), test.wrong)+":") || !strings.Contains(err.Error(), test.mended):
			t.Errorf("%o and %o: %v", test.folder, test.file, err)
		}
	}
}

// A folder whose files are all read must not be writable, even if it is sticky, as others
// could add a file.
func TestAFolderThatAllCanAddTo(t *testing.T) {
	folder, _ := place(t)
	if err := Check(folder, Folder); err != nil {
		t.Error(err)
	}
	chmod(t, folder, 0o1777)
	if err := Check(folder, Folder); err == nil {
		t.Error("everybody can put a rule file there")
	}
}

// Check looks at the folder of a link, and at the target of the link.
func TestLinks(t *testing.T) {
	folder, file := place(t)
	_, other := place(t)
	link := filepath.Join(folder, "link")
	for _, target := range []string{other, "../../../" + strings.TrimPrefix(other, filepath.Dir(filepath.Dir(filepath.Dir(folder)))+"/"), link + "2"} {
		os.Remove(link)
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		if target == link+"2" {
			if err := os.Symlink(other, target); err != nil {
				t.Fatal(err)
			}
		}
		if err := Check(link, File); err != nil {
			t.Errorf("to %s: %v", target, err)
		}
		chmod(t, filepath.Dir(other), 0o777)
		if err := Check(link, File); err == nil {
			t.Errorf("to %s, in a folder that all can write: no error", target)
		}
		chmod(t, filepath.Dir(other), 0o755)
		chmod(t, folder, 0o777)
		if err := Check(link, File); err == nil {
			t.Errorf("to %s, from a folder that all can write: no error", target)
		}
		chmod(t, folder, 0o755)
	}
	os.Remove(file)
	if err := os.Symlink(file, file); err != nil {
		t.Fatal(err)
	}
	if err := check(file, File); err == nil {
		t.Error("a link to itself: no error")
	}
}

func TestWhatIsNoFileIsNotLookedAt(t *testing.T) {
	folder, _ := place(t)
	chmod(t, folder, 0o777)
	fifo := filepath.Join(folder, "fifo")
	if err := syscall.Mkfifo(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, "/dev/null", "/dev/stdin"} {
		if info, err := os.Stat(path); err != nil || info.Mode().IsRegular() {
			continue
		}
		if err := Check(path, File); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give files to others")
	}
}

func TestOwners(t *testing.T) {
	needsRoot(t)
	const somebody = 12345
	folder, file := place(t)
	for _, path := range []string{folder, file} {
		if err := os.Chown(path, somebody, -1); err != nil {
			t.Fatal(err)
		}
		t.Setenv("SUDO_UID", "")
		if err := Check(file, File); err == nil || !strings.Contains(err.Error(), path+" belongs to the user 12345") || !strings.Contains(err.Error(), "chown root "+path) {
			t.Errorf("%s of somebody: %v", path, err)
		}
		t.Setenv("SUDO_UID", "12345")
		if err := Check(file, File); err != nil {
			t.Errorf("%s of who has called sudo: %v", path, err)
		}
		if err := os.Chown(path, 0, -1); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SUDO_UID", "")
	link := filepath.Join(folder, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(link, somebody, -1); err != nil {
		t.Fatal(err)
	}
	if err := Check(link, File); err == nil {
		t.Error("a link of somebody's: no error")
	}
}

func TestGroups(t *testing.T) {
	needsRoot(t)
	_, file := place(t)
	chmod(t, file, 0o660)
	for _, kind := range []Kind{File, List} {
		if err := os.Chown(file, 0, 12345); err != nil {
			t.Fatal(err)
		}
		if err := Check(file, kind); err == nil || !strings.Contains(err.Error(), "the group 12345 can write") || !strings.Contains(err.Error(), "chmod g-w "+file) {
			t.Errorf("%d, of a group: %v", kind, err)
		}
		if err := os.Chown(file, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := Check(file, kind); (err == nil) != (kind == List) {
			t.Errorf("%d, of root's group: %v", kind, err)
		}
	}
	setfacl, err := exec.LookPath("setfacl")
	if err != nil {
		t.Skip("needs setfacl")
	}
	if out, err := exec.Command(setfacl, "-m", "u:12345:rw", file).CombinedOutput(); err != nil {
		t.Skipf("needs a file system with ACLs: %s", out)
	}
	for _, kind := range []Kind{File, List} {
		if err := Check(file, kind); err == nil {
			t.Error("somebody can write it by an ACL: no error")
		}
	}
}
