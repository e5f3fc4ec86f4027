//go:build unix

package ruleset_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/knockwall/knockwall/internal/durable/durabletest"
	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/method/fixed"
	"github.com/knockwall/knockwall/internal/method/passwords"
	"github.com/knockwall/knockwall/ruleset"
)

// Recall reads the same configuration that Save saved, with the files in the same order,
// also if other files were saved before.
func TestSavedRulesReadTheSame(t *testing.T) {
	path := t.TempDir()
	folder := filepath.Join(t.TempDir(), "former")
	disk := durabletest.Watch(t)
	door := func(file, name, port string) {
		t.Helper()
		text := "door \"" + name + "\" {\n  ports = [" + port + "]\n  sequence = [4113, 1840, 27911]\n}\n"
		if err := os.WriteFile(filepath.Join(path, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	compare := cmp.Options{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmpopts.IgnoreUnexported(fixed.Sequence{}),
		cmpopts.IgnoreFields(ruleset.Wall{}, "IdentityPath")}
	for _, change := range []func(){
		func() { door("b.hcl", "ssh", "22"); door("a.hcl", "web", "443"); door("10.hcl", "dns", `"53/udp"`) },
		func() { os.Remove(filepath.Join(path, "a.hcl")) },
	} {
		change()
		loaded := ruleset.Load(path)
		if loaded.Config == nil {
			t.Fatal(loaded.Diagnostics)
		}
		if err := loaded.Save(folder); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(loaded.Config, ruleset.Load(folder).Config, compare); diff != "" {
			t.Errorf("what was saved (-loaded +saved):\n%s", diff)
		}
		disk.Has(folder)
		kept, err := filepath.Glob(filepath.Join(folder, "*"))
		if err != nil || len(kept) < 2 {
			t.Errorf("saved are %q, %v", kept, err)
		}
		for _, file := range kept {
			disk.Has(file)
		}
		entries, err := os.ReadDir(filepath.Dir(folder))
		if err != nil || len(entries) != 1 {
			t.Errorf("beside it: %v, %v", entries, err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("others can read it: %v, %v", info.Mode(), err)
			}
		}
	}
	if err := ruleset.Load(path).Save(filepath.Join(path, "b.hcl", "former")); err == nil {
		t.Error("saved in a file")
	}
}

// A missing or unusable secret or list disables its method only, and not the door. Save
// does not copy secrets and lists.
func TestRecalledRulesLackWhatIsGoneAndStand(t *testing.T) {
	home, state := t.TempDir(), t.TempDir()
	secret, list, path := filepath.Join(home, "secret"), filepath.Join(home, "list"), filepath.Join(home, "rules.hcl")
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const key = "qzqzjazzqzqzjazz"
	put(secret, key)
	put(list, "1,2,3\n4,5,6\n7,8,9\n10,11,12\n13,14,15\n")
	put(path, `door "otp" {
  ports = [22]
  otp {
    port        = "2000/udp"
    open_secret = file("`+secret+`")
  }
}
door "rolling" {
  ports = [23]
  rolling { secret = file("`+secret+`") }
}
door "list" {
  ports = [24]
  one_time_sequences = "`+list+`"
}
`)
	folder := filepath.Join(state, "rules")
	if err := ruleset.Load(path).Save(folder); err != nil {
		t.Fatal(err)
	}
	if _, err := ruleset.Recall(folder, filepath.Join(home, "others.hcl")); !errors.Is(err, ruleset.ErrNoneKept) {
		t.Errorf("of other rule files: %v", err)
	}
	for name, spoil := range map[string]func(){
		"gone":     func() { os.Remove(secret); os.Remove(list) },
		"too long": func() { put(secret, strings.Repeat("x", 3000)); put(list, "many\n") },
		"exposed":  func() { put(secret, key); os.Chmod(secret, 0o604); put(list, "1,2,3\n"); os.Chmod(list, 0o604) },
	} {
		spoil()
		l, err := ruleset.Recall(folder, path)
		if err != nil || l.Config == nil {
			t.Fatalf("%s: %v, %v", name, err, l.Diagnostics)
		}
		now, err := effective.Resolve(l.Config, time.Unix(1_740_000_000, 0), effective.Host{})
		if err == nil || len(now.Doors) != 3 || now.Doors[0].Methods[0].(*passwords.OTP).Open.IsSet() || !now.Doors[2].States[0].Unread || !now.HasUnread() || now.Readable(time.Unix(1_740_000_000, 0)) {
			t.Errorf("%s: %v, %+v", name, err, now.Doors)
		}
		// An unreadable list is tried again, and an unreadable secret is not read before the
		// next reload. Neither changes with the time.
		if _, turns := now.Expires(); turns && name != "too long" || !now.IsOf(time.Unix(1_740_009_000, 0)) && name != "too long" {
			t.Errorf("%s: it turns", name)
		}
	}
	if differs, err := ruleset.Load(path).Differs(); differs || err != nil {
		t.Errorf("the files differ: %t, %v", differs, err)
	}
	err := filepath.WalkDir(state, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		if strings.Contains(string(text), key) || strings.Contains(string(text), "10,11,12") {
			t.Errorf("%s has what the rules name", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := ruleset.Recall(folder, path); !errors.Is(err, ruleset.ErrNoneKept) {
		t.Errorf("from a folder that others can read: %v", err)
	}
}

// Recall refuses a folder that another user may have written.
func TestOnlyThisUsersOwnFolderIsRecalled(t *testing.T) {
	path, folder := rulesFile(t), filepath.Join(t.TempDir(), "former")
	if err := ruleset.Load(path).Save(folder); err != nil {
		t.Fatal(err)
	}
	refused := func(why string) {
		t.Helper()
		if l, err := ruleset.Recall(folder, path); !errors.Is(err, ruleset.ErrNoneKept) {
			t.Errorf("recalled where %s: %v, %v", why, l, err)
		}
	}
	for _, mode := range []os.FileMode{0o710, 0o770, 0o701} {
		if err := os.Chmod(folder, mode); err != nil {
			t.Fatal(err)
		}
		refused("others can enter the folder")
	}
	if err := os.Chmod(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := ruleset.Recall(folder, path); err != nil {
		t.Fatal(err)
	}
	link := folder + ".link"
	if err := os.Symlink(folder, link); err != nil {
		t.Fatal(err)
	}
	if _, err := ruleset.Recall(link, path); !errors.Is(err, ruleset.ErrNoneKept) {
		t.Errorf("recalled by a link: %v", err)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(folder, 12345, -1); err != nil {
		t.Fatal(err)
	}
	refused("another user owns the folder")
}

// rulesFile writes a rule file.
func rulesFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rules.hcl")
	if err := os.WriteFile(path, []byte("door \"ssh\" {\n  ports = [22]\n  sequence = [4113, 1840, 27911]\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
