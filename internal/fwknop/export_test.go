package fwknop

// Seal makes a datagram of any content.
func Seal(k Keys, content string) []byte { return seal(k, content) }
