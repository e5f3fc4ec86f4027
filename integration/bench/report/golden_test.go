package report_test

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew, to be reviewed by eye")

func TestGolden(t *testing.T) {
	r := made()
	for name, write := range map[string]func(io.Writer) error{
		"made.txt": r.WriteText, "made.json": r.WriteJSON, "made.svg": r.WriteSVG,
	} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := write(&got); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got.String()); diff != "" {
				t.Errorf("not what %s has (-want +got); if it is better, run with -update:\n%s", path, diff)
			}
		})
	}
}

// full is a writer that fails.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestWhatCannotBeWrittenIsTold(t *testing.T) {
	r := made()
	for name, write := range map[string]func(io.Writer) error{"text": r.WriteText, "JSON": r.WriteJSON, "SVG": r.WriteSVG} {
		if err := write(full{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
