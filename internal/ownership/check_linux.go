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

// maxLinks is the maximum number of symbolic links in a path: path_resolution(7).
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

// checkOne checks one file or folder. passed says that the path continues inside it.
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
		return fmt.Errorf("everybody on this host can write %s: run chmod go-w %[1]s, and check whether somebody has changed it", path)
	case mode.Perm()&0o020 == 0:
	case kind == List && isDaemons(owner.Gid) && !hasACL(path):
	default:
		return fmt.Errorf("the group %s can write %s: run chmod g-w %[2]s, and check whether somebody has changed it", groupName(owner.Gid), path)
	}
	return nil
}

// checkOwner returns an error unless a trusted user owns the file.
func checkOwner(path string, info fs.FileInfo) error {
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || isTrusted(owner.Uid) {
		return nil
	}
	return fmt.Errorf("%s belongs to the user %s, who can change it: run chown root %[1]s, and check whether somebody has changed it", path, userName(owner.Uid))
}

func isTrusted(uid uint32) bool {
	switch {
	case uid == 0, int(uid) == os.Geteuid():
		return true
	case os.Geteuid() == 0 && os.Getenv("SUDO_UID") == number(uid):
		return true // the caller of sudo, who can change any file as root
	case uid == overflow && !ownsAll():
		return true // a user without a number in this user namespace, such as the host's root
	}
	u, err := user.Lookup(DaemonUser)
	return err == nil && u.Uid == number(uid)
}

// isDaemons reports whether a group is that of the daemon, the caller or root.
func isDaemons(gid uint32) bool {
	if gid == 0 || int(gid) == os.Getegid() {
		return true
	}
	u, err := user.Lookup(DaemonUser)
	return err == nil && u.Gid == number(gid)
}

// hasACL reports whether the file has an ACL. The group bits are then the mask of the ACL.
func hasACL(path string) bool {
	_, err := unix.Lgetxattr(path, "system.posix_acl_access", nil)
	return err == nil || !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP)
}

// overflow is the user ID for owners that have no number in a user namespace:
// user_namespaces(7).
const overflow = 65534

// ownsAll reports whether the user namespace maps all user IDs of the host, unchanged.
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

// number formats the ID of a user or group, which may exceed an int on 32-bit systems.
func number(id uint32) string { return strconv.FormatUint(uint64(id), 10) }
