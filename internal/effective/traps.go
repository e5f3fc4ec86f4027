package effective

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/knockwall/knockwall/internal/packet"
)

// Where traps are. Whoever finds the knocks by trying ports finds their neighbours,
// so most traps are near; who tries selected ports meets those that are scattered.
const (
	near         = 16 // how far from a knock a trap is near
	nearOfTraps  = 4  // all but one of so many traps are near
	triesPerTrap = 8
)

// The ports from which scattered traps are drawn: none of the system's, and for UDP
// none of those that Linux sends from by default, where an answer may come late.
const (
	firstScattered = 1024
	firstEphemeral = 32768
	lastEphemeral  = 60999
)

// choose returns the door's traps: beside each knock, near it, and scattered over all
// ports; never one that is taken. They follow from the door's name and its knocks, so
// that a table can be built twice.
func (d *Door) choose(taken func(packet.Port) bool) []packet.PortRange {
	knocks := d.AllKnocks()
	if d.TrapCount == 0 {
		return without(d.TrapList, knocks)
	}
	if len(knocks) == 0 {
		return nil
	}
	seed := sha256.New()
	seed.Write([]byte(d.Name))
	for _, k := range knocks {
		seed.Write(binary.BigEndian.AppendUint16([]byte{byte(k.Protocol)}, k.Number))
	}
	random := rand.New(rand.NewChaCha8([32]byte(seed.Sum(nil))))
	chosen := map[packet.Port]bool{}
	try := func(number int, protocol packet.Protocol) bool {
		p := packet.Port{Number: uint16(number), Protocol: protocol}
		if number < 1 || number > 65535 || len(chosen) == d.TrapCount || chosen[p] || slices.Contains(knocks, p) || isService(p) || taken(p) {
			return false
		}
		chosen[p] = true
		return true
	}
	// What goes through the ports in order meets the first that is free on each side.
	for _, side := range []int{-1, 1} {
		for _, k := range knocks {
			for away := 1; away <= near && !try(int(k.Number)+side*away, k.Protocol); away++ {
			}
		}
	}
	for range triesPerTrap * d.TrapCount {
		if len(chosen) >= d.TrapCount-d.TrapCount/nearOfTraps {
			break
		}
		k := knocks[random.IntN(len(knocks))]
		try(int(k.Number)-near+random.IntN(2*near+1), k.Protocol)
	}
	// Those for which there is no room near the knocks are scattered, too.
	for range triesPerTrap * d.TrapCount {
		k := knocks[random.IntN(len(knocks))]
		number := firstScattered + random.IntN(65536-firstScattered)
		if k.Protocol == packet.TCP || number < firstEphemeral || number > lastEphemeral {
			try(number, k.Protocol)
		}
	}
	var traps []packet.PortRange
	for p := range chosen {
		traps = append(traps, packet.PortRange{First: p.Number, Last: p.Number, Protocol: p.Protocol})
	}
	return packet.MergeRanges(traps)
}

// without returns ranges without the ports that are knocks: what is written down may
// have some that a rolling sequence, or one of a list, has for a while.
func without(ranges []packet.PortRange, knocks []packet.Port) []packet.PortRange {
	for _, k := range knocks {
		var left []packet.PortRange
		for _, r := range ranges {
			if !r.Contains(k) {
				left = append(left, r)
				continue
			}
			if r.First < k.Number {
				left = append(left, packet.PortRange{First: r.First, Last: k.Number - 1, Protocol: r.Protocol})
			}
			if k.Number < r.Last {
				left = append(left, packet.PortRange{First: k.Number + 1, Last: r.Last, Protocol: r.Protocol})
			}
		}
		ranges = left
	}
	return ranges
}
