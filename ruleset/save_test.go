package ruleset_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/ruleset"
)

// What is saved reads the same, in the order of the files, also when another set
// of files was saved before.
func TestSavedRulesReadTheSame(t *testing.T) {
	path := t.TempDir()
	folder := filepath.Join(t.TempDir(), "former")
	door := func(file, name, port string) {
		t.Helper()
		text := "door \"" + name + "\" {\n  ports = [" + port + "]\n  sequence = [4113, 1840, 27911]\n}\n"
		if err := os.WriteFile(filepath.Join(path, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	compare := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
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
