// Package systemd connects knockwall with systemd. The daemon gets the control socket
// from systemd ([Listener]). It tells systemd that the wall is in force, its status, and
// that it does not hang ([Service]). It writes events to the journal ([Journal]). Without
// systemd, none of that happens.
//
// This folder also contains the unit files, the user that they need, and the catalog that
// explains the messages in the journal.
package systemd
