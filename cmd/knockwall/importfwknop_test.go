package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/knockwall/knockwall/internal/durable"
	"github.com/knockwall/knockwall/internal/migrate"
)

// The rule file names the keys, so they have to be there after a power failure.
func TestKeysAreSynced(t *testing.T) {
	var synced []string
	durable.Observe(func(f *os.File) { synced = append(synced, f.Name()) })
	t.Cleanup(func() { durable.Observe(nil) })
	folder := filepath.Join(t.TempDir(), "secrets")
	if err := writeKeys(folder, []migrate.KeyFile{{Name: "alice.key", Text: []byte("a2V5\n")}}); err != nil {
		t.Fatal(err)
	}
	if len(synced) != 3 || !slices.Contains(synced, folder) || !slices.Contains(synced, filepath.Dir(folder)) {
		t.Errorf("synced were %q", synced)
	}
}
