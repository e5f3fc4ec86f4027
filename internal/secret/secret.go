// Package secret keeps keys out of logs, messages and machine-readable output.
package secret

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"io"
)

// shown is the text of every secret.
const shown = "(secret)"

// Secret is a key that is never shown. Printed or marshalled in any way, it is "(secret)".
// The zero value has no key and is unset.
//
// Compare secrets with Equal. == does not compile, and reflect.DeepEqual is true for unset
// secrets only.
type Secret struct {
	// The key is in a function, which no printer looks into. For values in unexported fields
	// and for %p, package fmt calls no methods, but would show the bytes of a slice.
	key func() []byte
}

// New returns a secret with a copy of a key. With an empty key the secret is unset.
func New(key []byte) Secret {
	if len(key) == 0 {
		return Secret{}
	}
	key = bytes.Clone(key)
	return Secret{key: func() []byte { return key }}
}

// Key returns the key, or nil if the secret is unset. The caller must not change it.
func (s Secret) Key() []byte {
	if s.key == nil {
		return nil
	}
	return s.key()
}

// IsSet reports whether there is a key.
func (s Secret) IsSet() bool { return s.key != nil }

// Equal reports whether both keys are the same. Its timing reveals only whether their
// lengths are equal.
func (s Secret) Equal(o Secret) bool {
	return subtle.ConstantTimeCompare(s.Key(), o.Key()) == 1
}

// Format writes "(secret)" for every verb and flag.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, shown) }

// MarshalText returns "(secret)". encoding/json and log/slog call it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(shown), nil }
