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
// audit trail. Whoever takes both takes change first; closing sockets waits for
// their handlers, which may want change, so that it is never done with it held.
//
// # Openings
//
// Who has knocked when nobody else waits to be heard has his window opened at once, by
// the goroutine that has heard him. Otherwise he is queued, knocks go on being heard, and
// all that are queued by the time that change is free are opened in one transaction.
// Whatever closes windows, or puts in another table, opens first what was queued before
// it. A queue that is full keeps the log from being read until there is room.
//
// # Changes
//
// The kernel drops every packet that waits in any queue when a hook is taken
// away. So a reload keeps the table's hook, and the sockets, and changes what is
// between them. For the moment between the two, the new configuration judges what
// the old rules hand on. Where numbers change, and when the daemon stops, the
// rules name others first, and then the former sockets are read until they are
// empty (retire). To stop is to let the rules name numbers to which nobody
// listens: what on_failure says holds from then on, and windows admit by the
// kernel's own set.
//
// # Turns
//
// What a configuration comes to depends on the time: a rolling sequence has other
// knocks with each step, and a list of one-time sequences with each that is used.
// [effective.Resolve] says what is good now. When that changes, a front that shares
// all but the sequences takes the place of the one before, and the table is installed
// anew, which leaves its hook and its sets as they are.
//
// # What lasts
//
// What opens a door once is written down before it opens (once), and an on_close when
// it is due, before its on_open is run (commands). So whatever becomes of the daemon,
// nothing opens twice, and nothing that was begun is left.
//
// # Truth
//
// At a start the kernel's windows are noted, with the time that they have left.
// From then on the kernel's table can lack what is noted only if somebody else has
// changed it; it is put back from the notes then (restore). On kernels where a
// table can be a process's own nobody can, and nobody watches.
//
// # Life
//
// A daemon that hangs keeps guests waiting, until the kernel's queue is full and
// lets them in without it. So that somebody ends it before, Alive compares what was
// read from the sockets, and handled, with what it was some seconds ago. While the
// wall is being put back everybody waits, and that is life: the windows are nowhere
// else then.
package wall
