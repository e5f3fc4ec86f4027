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
)

// forbidden adds to an error the cure, if it is that this user lacks rights, r or rw, to
// a file.
func forbidden(err error, rights string) error {
	var at *fs.PathError
	if !errors.As(err, &at) || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	name := barrier(at.Path)
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		rights = "rx"
	}
	who, group := strconv.Itoa(os.Geteuid()), strconv.Itoa(os.Getegid())
	if u, err := user.LookupId(who); err == nil {
		who = u.Username
	}
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Errorf("%w. Let the user %s in: chgrp %s %[4]s && chmod g+%[5]s %[4]s", err, who, group, name, rights)
}

// barrier returns the folder on the way to a file that this user may not enter, or the
// file.
func barrier(path string) string {
	for i, c := range path {
		if folder := path[:i]; c == filepath.Separator && folder != "" && !canEnter(folder) {
			return folder
		}
	}
	return strings.TrimSuffix(path, "/")
}

// canEnter reports whether this user may look up what is in a folder. Nothing else lets
// a path go on through it.
func canEnter(folder string) bool {
	_, err := os.Stat(folder + string(filepath.Separator) + ".")
	return err == nil
}
