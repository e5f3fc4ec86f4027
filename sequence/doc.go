// Package sequence decides who has knocked what, and who may come in.
//
// It does no I/O and has no clock: packets and the time are handed to it, and
// what it decides is handed back, so that every rule of knocking can be tested
// without a kernel and without waiting. Three things live here, each of them
// bounded in memory:
//
//   - [Tracker] follows the attempts: which source has taken how many steps of
//     which of a door's locks, the sequences that open or close it. Knocks are heard
//     in the order of two streams, as two CPUs receive.
//   - [Windows] are the doors that stand open, for whom, until when and for how
//     many connections. The kernel holds the same windows and enforces them;
//     these are the daemon's notes about them.
//   - [Hold] is the queue of strangers' first packets that wait a moment, because
//     the knock that lets them in may still be on its way.
//
// None of them is safe for concurrent use.
package sequence
