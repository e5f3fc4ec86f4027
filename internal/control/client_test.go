package control

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
)

// A user who may not use the socket is told its group, if that helps.
func TestTheGroupOfASocketIsNamed(t *testing.T) {
	gid := os.Getegid()
	if gid == 0 {
		gid = 1
	}
	group, err := user.LookupGroupId(strconv.Itoa(gid))
	if err != nil {
		t.Skip("needs a group with a name: ", err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "socket")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, -1, gid); err != nil {
		t.Fatal(err)
	}
	if got := orJoin(path); got != "" {
		t.Errorf("a group that may not use it is named: %q", got)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		t.Fatal(err)
	}
	if got, want := orJoin(path), ", or join its group and log in again: sudo usermod -aG "+group.Name+" "+me.Username; got != want {
		t.Errorf("the cure is %q, want %q", got, want)
	}
	if got := orJoin(path + "2"); got != "" {
		t.Errorf("without a file the cure is %q", got)
	}
}
