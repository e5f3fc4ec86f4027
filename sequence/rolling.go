package sequence

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// Rolling is a sequence that follows from a secret and the time, in the spirit of RFC
// 6238 (TOTP). An overheard sequence is worthless once its step is over.
//
// Time is counted in steps: step n begins at n times Step in Unix time. The knocks of
// step n are computed one after the other, with i = 0, 1, 2 and so on:
//
//	mac  = HMAC-SHA-256(secret, n as 8 bytes ‖ i as 4 bytes), both big-endian
//	port = first port of the range + (first 4 bytes of mac, big-endian) mod size of the range
//
// A port that the step already has is skipped. HMAC is that of RFC 2104.
type Rolling struct {
	Key    []byte // the secret
	Length int    // knocks of a step, from 1 to MaxSteps, and fewer than Ports has ports
	Ports  packet.PortRange
	Step   time.Duration // in whole seconds, 1 s or more
}

// StepAt returns the number of the step that t is in. It is negative before 1970.
func (r *Rolling) StepAt(t time.Time) int64 {
	seconds, length := t.Unix(), int64(r.Step/time.Second)
	n := seconds / length
	if seconds < n*length { // before 1970
		n--
	}
	return n
}

// Begins returns the time at which a step begins.
func (r *Rolling) Begins(step int64) time.Time {
	return time.Unix(step*int64(r.Step/time.Second), 0)
}

// Knocks returns the knocks of a step, in order. It does not return if Length is more
// than Ports has ports.
func (r *Rolling) Knocks(step int64) []packet.Port {
	size := uint32(r.Ports.Last-r.Ports.First) + 1
	mac := hmac.New(sha256.New, r.Key)
	var knocks []packet.Port
	for i := uint32(0); len(knocks) < r.Length; i++ {
		mac.Reset()
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(step)))
		mac.Write(binary.BigEndian.AppendUint32(nil, i))
		n := binary.BigEndian.Uint32(mac.Sum(nil)) % size
		p := packet.Port{Number: r.Ports.First + uint16(n), Protocol: r.Ports.Protocol}
		if !slices.Contains(knocks, p) {
			knocks = append(knocks, p)
		}
	}
	return knocks
}
