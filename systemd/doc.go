// Package systemd is how knockwall and systemd talk. The control socket comes
// from it ([Listener]); it hears when the wall stands, how the daemon is, and
// that it does not hang ([Service]); and the journal takes the audit trail
// ([Journal]). Where no systemd is, nothing of that happens.
//
// Beside this are the unit files, the user that they need, and the catalog of what
// the journal's messages mean.
package systemd
