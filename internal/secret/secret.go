// Package secret keeps keys out of sight: out of logs, of messages, and of what
// is written for machines.
package secret

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"io"
)

// shown is what a secret looks like.
const shown = "(secret)"

// Secret is a key that is never shown: however it is printed or marshalled, it is
// "(secret)". Its zero value is no key.
//
// Two secrets are compared by Equal alone: == does not compile, and
// reflect.DeepEqual holds for none but unset ones.
type Secret struct {
	// In a function, as no printer looks into one. Package fmt asks no method of what
	// is in an unexported field, or is printed by %p, but shows the bytes of a slice
	// there, too.
	key func() []byte
}

// New returns the secret of a key, which is copied. An empty key is none.
func New(key []byte) Secret {
	if len(key) == 0 {
		return Secret{}
	}
	key = bytes.Clone(key)
	return Secret{key: func() []byte { return key }}
}

// Key returns the key, which must not be changed, and nil where there is none.
func (s Secret) Key() []byte {
	if s.key == nil {
		return nil
	}
	return s.key()
}

// IsSet reports whether there is a key.
func (s Secret) IsSet() bool { return s.key != nil }

// Equal reports whether both keys are the same. The time that takes tells nothing
// of them but whether they have one length.
func (s Secret) Equal(o Secret) bool {
	return subtle.ConstantTimeCompare(s.Key(), o.Key()) == 1
}

// Format writes "(secret)", whatever the verb and its flags.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, shown) }

// MarshalText returns "(secret)". So do encoding/json and log/slog, which ask it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(shown), nil }
