package doctor

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTablesOfIPTablesLegacyNeedAModule(t *testing.T) {
	before := moduleFolder
	t.Cleanup(func() { moduleFolder = before })
	moduleFolder = t.TempDir()
	if isUnused("ip_tables") {
		t.Error("where the kernel has no such module, it may have the tables built in")
	}
	for _, step := range []struct {
		user string
		want bool
	}{{"", true}, {"iptable_filter", true}, {"iptable_nat", false}} {
		if err := os.MkdirAll(filepath.Join(moduleFolder, "ip_tables", "holders", step.user), 0o700); err != nil {
			t.Fatal(err)
		}
		if got := isUnused("ip_tables"); got != step.want {
			t.Errorf("with %q: %t", step.user, got)
		}
	}
}
