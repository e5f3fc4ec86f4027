// Package systemd connects the daemon to systemd. systemd passes the control socket
// ([Listener]). The daemon reports to it that the wall stands, its status, and that it does
// not hang ([Service]). The journal receives the audit trail ([Journal]). Without systemd
// the package does nothing.
//
// This folder also has the unit files, the user that they need, and the catalog that
// explains the messages in the journal.
package systemd
