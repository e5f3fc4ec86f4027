// Package sequence follows knocks. It decides which source has completed which sequence,
// and which sources have an open window.
//
// The package does no I/O and reads no clock. The caller passes packets and the time to
// it, and gets decisions back. So every rule of knocking can be tested without a kernel
// and without waiting. It has three parts, each bounded in memory:
//
//   - [Tracker] follows the attempts: how many steps of which lock each source has taken.
//     A lock is a sequence that opens or closes a door. The tracker accepts knocks in the
//     order of two merged streams, as two CPUs receive them.
//   - [Windows] holds the open windows: their doors, sources, ends and connection counts.
//     The kernel holds the same windows and enforces them. These are the daemon's notes.
//   - [Hold] is the queue of first packets from sources without a window (strangers).
//     Each waits a moment, because the knock that opens its window may still be on its
//     way.
//
// [Rolling] derives knocks from a secret and the time. [Orders] and [Guesses] say how
// hard a sequence is to guess.
//
// Tracker, Windows and Hold are not safe for concurrent use.
package sequence
