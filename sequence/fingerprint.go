package sequence

import "github.com/knockwall/knockwall/internal/packet"

// How a [Tracker] knows packets again: a SYN that is not answered is sent again after
// a second, whatever came meanwhile. Browsers, and some libraries, dial each knock
// twice or more, and each of these SYNs is sent again.

// fingerprint is what is remembered of a packet: 24 bits, of the port that it was sent
// from and its sequence number. Of one source, packets to one port have the same with a
// probability of 1 in 16 million where that is by chance, and never if they differ in
// the port alone, as datagrams do, which have no number. The bit after the 24 is set, so
// that 0 is none.
type fingerprint uint32

const fingerprintBits = 24

func fingerprintOf(p packet.Packet) fingerprint {
	// The upper bits of the product depend on all of the number's.
	number := p.Sequence * 0x9e3779b1 >> (32 - fingerprintBits)
	return fingerprint(1<<fingerprintBits | number ^ uint32(p.SourcePort))
}

// again is the packets with which a step was dialled again, the latest first; 0 is
// none. They are apart from the hearings, so that a flood of first knocks does not
// touch them: they mean something only where the attempt says so.
type again [3]fingerprint

// dialled returns with what a step was dialled again.
func (t *Tracker) dialled(i int32, step int) *again {
	return &t.again[step*len(t.attempts)+int(i)]
}

// note notes a packet with which a step was dialled again.
func (t *Tracker) note(i int32, step int, packet fingerprint) {
	a, d := &t.attempts[i], t.dialled(i, step)
	if a.again&(1<<step) == 0 {
		a.again |= 1 << step
		*d = again{}
	}
	*d = again{packet, d[0], d[1]}
}

// knows reports whether a packet is one that was heard for a step.
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
