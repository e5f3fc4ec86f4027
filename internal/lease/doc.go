// Package lease decides which windows the hosts of a group share. It does no I/O and has no
// clock of its own. A [Member] takes what its daemon and the other hosts tell, and returns
// what to tell them.
//
// # Leases and closings
//
// A window that opens or is refreshed at a host is a lease: its host, a stamp, and the time
// that is left. Nobody tells when it ends, as clocks differ. Who hears of it counts from
// then on, so that a delay makes it end later by that delay; of several accounts of one
// lease, the one that ends first counts, and the host's own if there is one. A lease is
// remembered for ten seconds after its end, so that a late account does not begin it again.
// A host has one lease at a door for a source: that with the latest stamp.
//
// A closing is a stamp, too. It beats all leases at that door for that source, of whichever
// host, that have no later stamp. Of the others, the one that ends last is the window. A
// lease of another host never lasts longer than the window of this host's own door, counted
// from when it began there. It is passed on in its full length, as others may have doors with
// longer windows.
//
// So what a host knows is the same in whichever order, and however often, it hears it.
//
// # Stamps
//
// A stamp is the time of its host in milliseconds, or one more than any stamp that the host
// knew of that door and source, if that is later. So what a host does after it has heard of
// something comes after it, however wrong the clocks are. What two hosts do without knowing
// of each other is ordered by their clocks. At the same stamp a closing wins.
//
// # Who tells whom
//
// A host tells the others what happens at its own daemon, and nothing that it was told: a
// change that has an origin is no news. Only when a host asks, it gets what others know, and
// adds it to what it knows.
//
// A host remembers a closing until all leases that it has beaten are over, and ten minutes
// at least.
package lease
