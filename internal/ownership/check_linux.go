package ownership

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links a path may lead through: path_resolution(7).
const maxLinks = 40

func check(path string, kind Kind) error {
	at, rest := "/", strings.TrimPrefix(path, "/")
	if err := checkOne(at, Folder, rest != ""); err != nil {
		return err
	}
	for links := 0; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		if name == "" || name == "." {
			continue
		}
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		if err != nil {
			return err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			last := strings.Trim(rest, "/") == ""
			what := Folder
			if last {
				what = kind
			}
			if err := checkOne(next, what, !last); err != nil {
				return err
			}
			at = next
			continue
		}
		if links++; links > maxLinks {
			return fmt.Errorf("%s leads through more than %d symbolic links", path, maxLinks)
		}
		if err := checkOwner(next, info); err != nil {
			return err
		}
		target, err := os.Readlink(next)
		if err != nil {
			return err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = target + "/" + rest
	}
	return nil
}

// checkOne looks at one file or folder; passed is a folder that the path goes on in.
func checkOne(path string, kind Kind, passed bool) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if err := checkOwner(path, info); err != nil {
		return err
	}
	mode := info.Mode()
	owner, _ := info.Sys().(*syscall.Stat_t)
	switch {
	case passed && mode&fs.ModeSticky != 0:
	case mode.Perm()&0o002 != 0:
		return fmt.Errorf("everybody on this host can write %s: run chmod go-w %[1]s, and see whether it is as you left it", path)
	case mode.Perm()&0o020 == 0:
	case kind == List && isDaemons(owner.Gid) && !hasACL(path):
	default:
		return fmt.Errorf("the group %s can write %s: run chmod g-w %[2]s, and see whether it is as you left it", groupName(owner.Gid), path)
	}
	return nil
}

// checkOwner makes sure that a file is the file of somebody who may decide.
func checkOwner(path string, info fs.FileInfo) error {
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || isTrusted(owner.Uid) {
		return nil
	}
	return fmt.Errorf("%s is the user %s's, who can change it: run chown root %[1]s, and see whether it is as you left it", path, userName(owner.Uid))
}

func isTrusted(uid uint32) bool {
	switch {
	case uid == 0, int(uid) == os.Geteuid():
		return true
	case os.Geteuid() == 0 && os.Getenv("SUDO_UID") == number(uid):
		return true // who has become root by it, and can change all there is
	case uid == overflow && !ownsAll():
		return true // whoever it is, it is not told in a user namespace: root, for one
	}
	u, err := user.Lookup(DaemonUser)
	return err == nil && u.Uid == number(uid)
}

// isDaemons reports whether a group is the daemon's, the caller's or root's.
func isDaemons(gid uint32) bool {
	if gid == 0 || int(gid) == os.Getegid() {
		return true
	}
	u, err := user.Lookup(DaemonUser)
	return err == nil && u.Gid == number(gid)
}

// hasACL reports whether the bits of the group are the mask of an ACL.
func hasACL(path string) bool {
	_, err := unix.Lgetxattr(path, "system.posix_acl_access", nil)
	return err == nil || !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP)
}

// overflow is who files belong to whose owner has no number in a user namespace:
// user_namespaces(7).
const overflow = 65534

// ownsAll reports whether the numbers of users are those of the whole host.
func ownsAll() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err != nil || strings.Join(strings.Fields(string(text)), " ") == "0 0 4294967295"
}

func userName(uid uint32) string {
	if u, err := user.LookupId(number(uid)); err == nil {
		return u.Username
	}
	return number(uid)
}

func groupName(gid uint32) string {
	if g, err := user.LookupGroupId(number(gid)); err == nil {
		return g.Name
	}
	return number(gid)
}

// number writes the number of a user or group, which is more than an int holds on some
// systems.
func number(id uint32) string { return strconv.FormatUint(uint64(id), 10) }
