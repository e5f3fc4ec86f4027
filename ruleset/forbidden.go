//go:build unix

package ruleset

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/knockwall/knockwall/internal/ownership"
)

// forbidden adds the cure to an error that says that this user lacks permissions for a
// file. rights are the permissions that the file needs, r or rw. Only the daemon's user should
// get them: rule files and what they name have secrets.
func forbidden(err error, rights string) error {
	var at *fs.PathError
	if !errors.As(err, &at) || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	who, group := strconv.Itoa(os.Geteuid()), strconv.Itoa(os.Getegid())
	if u, err := user.LookupId(who); err == nil {
		who = u.Username
	}
	if who != ownership.DaemonUser {
		return fmt.Errorf("%w. Use sudo", err)
	}
	name := barrier(at.Path)
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		rights = "rx"
	}
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Errorf("%w. Give the user %s access: chgrp %s %[4]s && chmod g+%[5]s %[4]s", err, who, group, name, rights)
}

// barrier returns the first folder on the path of a file that this user may not search, or
// the file itself if there is none.
func barrier(path string) string {
	for i, c := range path {
		if folder := path[:i]; c == filepath.Separator && folder != "" && !canEnter(folder) {
			return folder
		}
	}
	return strings.TrimSuffix(path, "/")
}

// canEnter reports whether this user may search a folder (its x bit). A path leads through
// no other folder.
func canEnter(folder string) bool {
	_, err := os.Stat(folder + string(filepath.Separator) + ".")
	return err == nil
}
