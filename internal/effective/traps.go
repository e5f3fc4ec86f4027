package effective

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/knockwall/knockwall/internal/packet"
)

// The places of traps. A scan that finds the knocks also finds their neighbours, so most
// traps are near knocks. A scan of selected ports meets the scattered traps.
const (
	near         = 16 // maximum distance of a near trap from its knock
	nearOfTraps  = 4  // one in so many traps is scattered; the others are near
	triesPerTrap = 8
)

// The range of scattered traps. It excludes system ports, and for UDP the default ephemeral
// ports of Linux, where a late answer may arrive.
const (
	firstScattered = 1024
	firstEphemeral = 32768
	lastEphemeral  = 60999
)

// choose returns the door's traps: next to each knock, near the knocks, and scattered over
// all ports. It never chooses a port that is taken. The choice depends only on the door's
// name, its knocks and the taken ports, so that the same table can be built again.
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
	// A scan in order meets the first free port on each side of a knock.
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
	// Traps for which there is no free port near the knocks are scattered, too.
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

// without returns the ranges without the knocks. A knock of a rolling sequence or of a list
// may for a while hit a trap of the rule file.
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
