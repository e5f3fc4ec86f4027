package audit

// Code says in a fixed word which of the things that a [Kind] stands for has happened.
// Programs compare codes. The prose in [Event.Reason] is for people, and may change.
// The table says which codes an event of a kind can have.
type Code string

// The codes of knocks and passwords, and of what they open and close.
const (
	CodeSequence      Code = "sequence"       // a knock of a sequence that opens the door
	CodeCloseSequence Code = "close-sequence" // a knock of the sequence that closes it
	CodePassword      Code = "password"       // a one-time password that opens the door
	CodeClosePassword Code = "close-password" // a one-time password that closes it
	CodeManual        Code = "manual"         // an administrator's command
)

// The codes of knocks and connections that lead to nothing.
const (
	CodeWrongOrder     Code = "wrong-order"     // a knock was not the one that was due
	CodeTooLate        Code = "too-late"        // the sequence was not complete within seq_timeout
	CodeNotAPassword   Code = "not-a-password"  // a datagram was no valid one-time password
	CodeTrap           Code = "trap"            // the source has sent a packet to a trap port
	CodeSpray          Code = "spray"           // the source has tried many ports that nothing serves
	CodeNoWindow       Code = "no-window"       // no window is open for the source
	CodeMaxConnections Code = "max-connections" // the window has admitted max_connections
	CodeDuplicate      Code = "duplicate"       // the window has admitted a connection that looks the same
)

// The codes of windows.
const (
	CodeWindow      Code = "window"       // a window is open for the source
	CodeTimeout     Code = "timeout"      // the time of the window is up
	CodeNewRules    Code = "new-rules"    // the new rules have no place for the window
	CodeNotOpened   Code = "not-opened"   // the kernel did not open the window
	CodeNotClosed   Code = "not-closed"   // the window could not be closed
	CodeMaxWindows  Code = "max-windows"  // the door has as many windows as it can
	CodeMaybeUsed   Code = "maybe-used"   // it is not known whether this was used before
	CodeStillBarred Code = "still-barred" // sessions that were ended could not be released
)

// The codes of commands, and of what has to be remembered.
const (
	CodeSucceeded     Code = "succeeded"      // the command has returned 0
	CodeExitCode      Code = "exit-code"      // the command has returned something else
	CodeNoExitCode    Code = "no-exit-code"   // the command did not start, or was killed
	CodeInterrupted   Code = "interrupted"    // the daemon has stopped before the command ended
	CodeNotRun        Code = "not-run"        // too many commands wait, or the daemon stops
	CodeNotRemembered Code = "not-remembered" // what must outlast the daemon could not be written
	CodeMayRunAgain   Code = "may-run-again"  // it could not be written that the command has run
	CodeFewLeft       Code = "few-left"       // few one-time sequences are left
	CodeNoSequence    Code = "no-sequence"    // the door has no sequence that could open it
)

// The codes of the rules, the table and the daemon.
const (
	CodeRules          Code = "rules"            // rules are in force
	CodeTrial          Code = "trial"            // rules are in force until they are confirmed or the trial is over
	CodeConfirmed      Code = "confirmed"        // the rules on trial stay
	CodeNotConfirmed   Code = "not-confirmed"    // the trial is over, and the former rules are back
	CodeNextSequences  Code = "next-sequences"   // the sequences that are due could not be put in force
	CodePutBack        Code = "put-back"         // the table, or the former rules, are in force again
	CodeNotPutBack     Code = "not-put-back"     // they are not
	CodeWallStands     Code = "wall-stands"      // the table stays when the daemon stops
	CodeWallRemoved    Code = "wall-removed"     // the table is removed
	CodeWallNotRemoved Code = "wall-not-removed" // the table could not be removed
)

// The codes of overload, and of sums.
const (
	CodePacketsLost   Code = "packets-lost"          // packets are being lost
	CodeLossOver      Code = "loss-over"             // packets were lost, and no more are
	CodeEventsLost    Code = "events-lost"           // events of this trail were lost
	CodeConntrackFull Code = "conntrack-nearly-full" // conntrack's table is nearly full
	CodeConntrackRoom Code = "conntrack-has-room"    // conntrack's table has room again
	CodeManySources   Code = "many-sources"          // the event sums up sources that are not told apart
)
