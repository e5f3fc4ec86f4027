// Package wall is the daemon: it puts the table in place, hears the knocks,
// judges new connections, and keeps time.
//
// Data flows one way. A knock comes from nflog to the [sequence.Tracker]; when a
// sequence is complete, the window is opened in the kernel, and the strangers
// who were waiting for it go through the rules again. A new connection comes
// from nfqueue: one of a source with a window is counted and let pass, anybody
// else's is held until its knock arrives or its time is up. The kernel's set
// alone decides who has a window; the notes here only count, and explain.
//
// Two locks order everything. change is held while the kernel's table or a
// window is being changed, so that nothing opens between reading the windows
// and putting them into a new table. mu guards the notes; it is held while
// packets get their verdicts, so that those are given in order and agree with
// the notes, but never while waiting: not for a transaction, and not for the
// audit trail.
package wall
