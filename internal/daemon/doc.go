// Package daemon is the life of the process behind `knockwall run`. It is the only
// package that knows the wall, its rule files, its files on disk, the control socket and
// systemd. It connects them, and starts and ends them in order.
//
// # Start
//
//  1. It reads the rule files. If they cannot be used, it takes the last rules that were
//     in force.
//  2. It opens what can fail: the kernel's nftables, the control socket, and its files.
//  3. It installs the wall, and writes what the wall guards. Events at the doors are
//     written after that.
//  4. It starts its tasks. When all are ready, systemd gets READY=1.
//
// # Shutdown
//
// A signal, `knockwall down` or a task that fails ends the daemon. A second signal kills
// it at once.
//
//  1. No more signals are read, and no rule file is put in force by itself. systemd's
//     watchdog and status line end.
//  2. The wall ends: it gives the verdicts on the packets that wait, hands the table over
//     to the kernel or removes it, and runs the on_close commands that are due.
//  3. systemd gets STOPPING=1.
//  4. The control server ends. Until then clients could follow the events and ask for the
//     status. An answer that is under way has two seconds to complete.
//  5. The remaining events are written. The files, the control socket and the connection
//     to the kernel are closed.
//  6. The error is written, if there is one, and so is all that still waits for stderr,
//     for at most two seconds.
//
// Nothing waits for a disk that hangs: a reload that does is abandoned.
package daemon
