package fwknop

// Seal makes a datagram of any content.
func Seal(k Keys, content string) []byte { return seal(k, withDigest(content)) }

// SealWithoutDigest makes a datagram of any text.
func SealWithoutDigest(k Keys, text string) []byte { return seal(k, text) }

// WithHMAC makes a datagram of any text that is sent before the HMAC.
func WithHMAC(k Keys, text string) []byte { return withHMAC(k, unsent+text) }
