package ruleset

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/methods"
)

// blockSchemas returns the schema of each block of rule files. A block on_close is one like
// on_open.
func blockSchemas() map[string]*hcl.BodySchema {
	blocks := map[string]*hcl.BodySchema{"wall": impliedBy(rawWall{}), "door": doorSchema(), "on_open": impliedBy(rawCommand{}), "share": impliedBy(rawShare{}), "tls": impliedBy(rawTLS{})}
	for _, k := range methods.Kinds {
		if k.IsBlock() {
			blocks[k.Name] = impliedBy(k.Fields)
		}
	}
	return blocks
}

// The manual page of rule files describes every attribute of every block, in the section of
// the block, and no other.
func TestTheManualPageDescribesEveryAttribute(t *testing.T) {
	text, err := os.ReadFile("../docs/knockwall.hcl.5.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := blockSchemas()
	sections := regexp.MustCompile(`(?m)^## .*?\b(\w+)(?: and \w+)? blocks?$`).FindAllStringSubmatchIndex(string(text), -1)
	for i, at := range sections {
		end := len(text)
		if i+1 < len(sections) {
			end = sections[i+1][0]
		}
		name, section := string(text[at[2]:at[3]]), string(text[at[1]:end])
		schema, ok := blocks[name]
		if !ok {
			t.Errorf("there is no %s block", name)
			continue
		}
		delete(blocks, name)
		described := map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^- \*\*(\w+)\*\*`).FindAllStringSubmatch(section, -1) {
			described[m[1]] = true
		}
		for _, a := range schema.Attributes {
			if !described[a.Name] {
				t.Errorf("the section on %s blocks does not describe %s", name, a.Name)
			}
			delete(described, a.Name)
		}
		for name := range described {
			t.Errorf("%s, which is described, is no attribute", name)
		}
		if !strings.Contains(section, "required") && name != "wall" && name != "door" {
			t.Errorf("the section on %s blocks does not say what is required", name)
		}
	}
	for name := range blocks {
		t.Errorf("there is no section on %s blocks", name)
	}
}
