package main

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// What a command says of itself gives no orders to the reader of its page.
func TestManPageTakesTextAsItIs(t *testing.T) {
	c := &cobra.Command{
		Use:     "odd",
		Short:   `a \fBbackslash`,
		Long:    ".SH FORGED\n\n'ig\nand 1.5 and it's *plain* _text_ <here> [there]",
		Example: "  .not\n.but this",
		RunE:    func(*cobra.Command, []string) error { return nil },
	}
	c.Flags().StringP("file", "f", `C:\`, "read `FILE`, .dotted")
	c.Flags().Bool("force", false, "go on")
	page := string(manPage(c, time.Unix(1700000000, 0).UTC()))
	_, page, _ = strings.Cut(page, "\n.SH NAME\n")
	want := `odd - a \efBbackslash
.SH SYNOPSIS
\fBodd [flags]\fP
.SH DESCRIPTION
\&.SH FORGED
.PP
\&'ig
and 1.5 and it's *plain* _text_ <here> [there]
.SH OPTIONS
.TP
\fB-f\fP, \fB--file\fP="C:\e\e"
read \fBFILE\fR, .dotted
.TP
\fB--force\fP
go on
.SH EXAMPLE
.EX
  .not
\&.but this
.EE
.SH SEE ALSO

`
	if page != want {
		t.Errorf("the page is\n%s\nand not\n%s", page, want)
	}
}
