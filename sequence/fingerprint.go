package sequence

import "github.com/knockwall/knockwall/internal/packet"

// This file lets a [Tracker] recognize packets. A SYN without an answer is sent again
// after a second, whatever came meanwhile. Browsers and some libraries dial each knock
// twice or more, and send each of these SYNs again.

// fingerprint is 24 bits made of a packet's source port and TCP sequence number. Two
// packets from one source to one port have the same one by chance with a probability of 1
// in 16 million, and never if they differ in the source port alone. Datagrams, which have
// no sequence number, differ in that way. Bit 24 is always set, so that 0 means none.
type fingerprint uint32

const fingerprintBits = 24

func fingerprintOf(p packet.Packet) fingerprint {
	// The upper bits of the product depend on all bits of the number.
	number := p.Sequence * 0x9e3779b1 >> (32 - fingerprintBits)
	return fingerprint(1<<fingerprintBits | number ^ uint32(p.SourcePort))
}

// again holds the packets that dialled a step again, the latest first; 0 means none. They
// lie apart from the hearings, so that a flood of first knocks does not touch them: they
// are valid only if the step's bit is set in the attempt.
type again [3]fingerprint

// dialled returns the packets that dialled a step again.
func (t *Tracker) dialled(i int32, step int) *again {
	return &t.again[step*len(t.attempts)+int(i)]
}

// note records a packet that dialled a step again.
func (t *Tracker) note(i int32, step int, packet fingerprint) {
	a, d := &t.attempts[i], t.dialled(i, step)
	if a.again&(1<<step) == 0 {
		a.again |= 1 << step
		*d = again{}
	}
	*d = again{packet, d[0], d[1]}
}

// knows reports whether a packet was heard for a step before.
func (t *Tracker) knows(i int32, step int, packet fingerprint) bool {
	if t.hearing(i, step).packet == packet {
		return true
	}
	if t.attempts[i].again&(1<<step) == 0 {
		return false
	}
	d := t.dialled(i, step)
	return d[0] == packet || d[1] == packet || d[2] == packet
}
