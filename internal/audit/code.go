package audit

// Code is a fixed word that says what an event of a [Kind] was. Programs compare codes.
// The text in [Event.Reason] is for people and may change. The table says which codes a
// kind can have.
type Code string

// Codes of knocks and passwords, and of what they open and close.
const (
	CodeSequence      Code = "sequence"       // a knock of a sequence that opens the door
	CodeCloseSequence Code = "close-sequence" // a knock of the sequence that closes it
	CodePassword      Code = "password"       // a one-time password that opens the door
	CodeClosePassword Code = "close-password" // a one-time password that closes it
	CodeKey           Code = "key"            // a datagram signed with a key that opens the door
	CodeCloseKey      Code = "close-key"      // a datagram signed with a key that closes it
	CodeFwknop        Code = "fwknop"         // a datagram of an fwknop client that opens the door
	CodeManual        Code = "manual"         // an administrator's command
	CodeShared        Code = "shared"         // another host has opened or closed it
)

// Codes of knocks and connections without success.
const (
	CodeWrongOrder     Code = "wrong-order"     // the source sent another knock than the next one
	CodeTooLate        Code = "too-late"        // the sequence was not complete within seq_timeout
	CodeNotAPassword   Code = "not-a-password"  // a datagram was no valid one-time password
	CodeNotFwknop      Code = "not-fwknop"      // a datagram had no valid HMAC of fwknop
	CodeClock          Code = "clock"           // the time in an authentic datagram is too far from this host's
	CodeExpired        Code = "expired"         // the person's key or certificate is no longer or not yet valid
	CodeNotFrom        Code = "not-from"        // the person may not come from this address
	CodeNotAllowed     Code = "not-allowed"     // the person may not open this door, or not in this way
	CodeUnknownDoor    Code = "unknown-door"    // the datagram is for a door that this host does not have
	CodeTrap           Code = "trap"            // the source sent a packet to a trap port
	CodeSpray          Code = "spray"           // the source tried many ports that nothing serves
	CodeNoWindow       Code = "no-window"       // no window is open for the source
	CodeMaxConnections Code = "max-connections" // the window has admitted max_connections connections
	CodeDuplicate      Code = "duplicate"       // the window has admitted an identical connection
)

// Codes of windows.
const (
	CodeWindow      Code = "window"       // a window is open for the source
	CodeTimeout     Code = "timeout"      // the window's time is up
	CodeNoLonger    Code = "no-longer"    // the rules no longer admit the person
	CodeNewRules    Code = "new-rules"    // the new rules do not allow the window
	CodeNotOpened   Code = "not-opened"   // the kernel did not open the window
	CodeNotClosed   Code = "not-closed"   // the window could not be closed
	CodeMaxWindows  Code = "max-windows"  // the door has its maximum of windows
	CodeNotShared   Code = "not-shared"   // another host has told what this one does not accept from it
	CodeMaybeUsed   Code = "maybe-used"   // it is unknown whether the sequence or password was used before
	CodeStillBarred Code = "still-barred" // ended sessions could not be released
)

// Codes of commands, and of data that must survive the daemon.
const (
	CodeSucceeded     Code = "succeeded"      // the command exited with 0
	CodeExitCode      Code = "exit-code"      // the command exited with another code
	CodeNoExitCode    Code = "no-exit-code"   // the command did not start, or was killed
	CodeInterrupted   Code = "interrupted"    // the daemon stopped before the command ended
	CodeNotRun        Code = "not-run"        // too many commands wait, or the daemon is stopping
	CodeNotRemembered Code = "not-remembered" // data that must survive the daemon could not be written
	CodeMayRunAgain   Code = "may-run-again"  // the daemon could not write that the command has run
	CodeFewLeft       Code = "few-left"       // few one-time sequences are left
	CodeNoSequence    Code = "no-sequence"    // the door has no sequence that opens it
)

// Codes of the rules, the table and the daemon.
const (
	CodeRules          Code = "rules"            // rules are in force
	CodeTrial          Code = "trial"            // rules are in force until they are confirmed or the trial ends
	CodeConfirmed      Code = "confirmed"        // the rules on trial stay in force
	CodeNotConfirmed   Code = "not-confirmed"    // the trial has ended, and the former rules are back
	CodeReverted       Code = "reverted"         // the trial was ended by hand, and the former rules are back
	CodeNextSequences  Code = "next-sequences"   // the next sequences could not be put in force
	CodePutBack        Code = "put-back"         // the table or the former rules are in force again
	CodeNotPutBack     Code = "not-put-back"     // the table or the former rules could not be put back
	CodeWallStands     Code = "wall-stands"      // the daemon stops and the table stays
	CodeWallRemoved    Code = "wall-removed"     // the table was removed
	CodeWallNotRemoved Code = "wall-not-removed" // the table could not be removed
)

// Codes of overload and of sums.
const (
	CodePacketsLost   Code = "packets-lost"          // packets are being lost
	CodeLossOver      Code = "loss-over"             // packets were lost, but no longer are
	CodeEventsLost    Code = "events-lost"           // events were lost
	CodeConntrackFull Code = "conntrack-nearly-full" // conntrack's table is nearly full
	CodeConntrackRoom Code = "conntrack-has-room"    // conntrack's table has room again
	CodeManySources   Code = "many-sources"          // the event sums up many sources
)
