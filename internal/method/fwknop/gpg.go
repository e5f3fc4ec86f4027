package fwknop

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/method"
)

// RefuseGPG reports an error if a block has attributes of fwknop's GPG mode, named as in
// access.conf or .fwknoprc. It returns the block without them.
func RefuseGPG(r method.Reader, b *hcl.Block) *hcl.Block {
	all, _ := b.Body.JustAttributes() // Decode reports its errors
	var found []hcl.Range
	schema := &hcl.BodySchema{}
	for name, a := range all {
		if isGPG(name) {
			found = append(found, a.NameRange)
			schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: name})
		}
	}
	if len(found) == 0 {
		return b
	}
	first := slices.MinFunc(found, func(a, b hcl.Range) int { return a.Start.Byte - b.Start.Byte })
	r.FailAt(first, "GPG mode is not supported", "knockwall neither sends nor accepts datagrams in GPG mode. "+
		"Remove the gpg attributes, and write key and hmac_key, the keys for AES and HMAC: `fwknop --key-gen` makes both.")
	without := *b
	_, without.Body, _ = b.Body.PartialContent(schema)
	return &without
}

// isGPG reports whether an attribute is one of the GPG mode, such as GPG_DECRYPT_ID and
// USE_GPG.
func isGPG(attribute string) bool {
	name := strings.ToLower(attribute)
	return name == "gpg" || strings.HasPrefix(name, "gpg_") || strings.HasPrefix(name, "use_gpg")
}
