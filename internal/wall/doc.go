// Package wall is the daemon. It installs the nftables table, reads logged knocks and
// queued first packets, opens windows, gives verdicts, and runs periodic tasks.
//
// # Packets
//
// The rules of the table send packets to four places. See [nft.Numbers].
//
//   - The NFLOG group receives copies of knocks, of packets to traps, of datagrams with
//     one-time passwords, and of refused packets. Type knocks handles them.
//   - The queue "admitted" receives the first packets of connections whose source has an
//     open window. The daemon counts and accepts them, and refuses those beyond
//     max_connections.
//   - The queue "strangers" receives the first packets of sources without a window. The
//     daemon holds each of them for the time "hold" of the rule files. If the window opens
//     in that time, the verdict is NF_REPEAT, and the packet meets the rules again, which
//     now admit it. Otherwise the packet is refused.
//   - The queue "excess" receives what is above the rate limit of "strangers", at doors
//     that admit everybody while no daemon runs. It has room for one packet, and the daemon
//     gives no verdicts there. So the kernel drops all others while the daemon runs.
//
// A knock goes from package nflog to [sequence.Tracker]. When a sequence is complete, the
// window is opened: an element with a timeout is added to a set of the door in the kernel.
// These sets alone decide which sources have a window. The daemon's own record of the
// windows counts connections, holds packets, and is the source of status, explain and
// the reconciliation below.
//
// # Policies
//
// A policy is a configuration as it is effective at a time, together with the attempts and
// counters at its doors. The effective configuration changes with time: a rolling sequence
// changes with each step, a list when a sequence of it is used, and traps when programs
// begin or end to listen. [effective.Resolve] computes it. When it changes, a policy that
// shares everything but the sequences replaces the former one, and the table is replaced
// in one transaction, which keeps its hooks and sets (reresolve.go).
//
// # Locks
//
// A goroutine takes several locks in this order:
//
//   - installation.change is held while the table or a window in it changes. No window can
//     open between reading the windows from the kernel and writing them to a new table.
//   - windows.observing is held while observers see the events of windows.
//   - packets.mu guards what decides about packets. It is held while packets get their
//     verdicts, so that verdicts are given in order and agree with that state.
//   - windows.mu guards the record of windows.
//   - The other parts have a lock of their own. Under it they take only those of a store
//     and of losses.
//
// No lock called mu is held during a transaction, and only that of commands while an event
// is written.
//
// Closing a socket waits for its handler, and the handler may need change. So no socket is
// closed with change held.
//
// # Opening windows
//
// If no other knocks wait to be read, the goroutine that has read the last knock opens the
// window itself, at once. Otherwise the window is queued, and knocks continue to be read.
// When change becomes free, all queued windows are opened in one transaction. Operations
// that close windows or replace the table first open what was queued before them. While
// the queue is full, the log is not read.
//
// A transaction takes longer than all else between the last knock and the answer to the
// client's SYN. So windows are recorded first. Then the SYNs that wait for them are accepted,
// those included that the goroutine of the queue has not read yet (packets.releaseAhead). Then
// the kernel gets the windows. If it refuses one, its client has got one connection, and the
// packets of others wait until the kernel takes windows again. Packets with which the rules do
// more than accept them always wait for the kernel.
//
// # Reload
//
// The kernel drops the packets in all queues when a base chain is removed. So a reload
// keeps the base chains, and also the sockets if the numbers of the group and the queues
// stay the same. The new policy is in force just before the new rules: packets that the
// old rules still send are handled by the new policy.
//
// If the numbers change, the table gets the new numbers first. The former sockets are then
// read until they are empty, and closed (sockets.retire). Each wall has two banks of
// numbers for this purpose.
//
// # Stop
//
// The daemon stops in the same way: the table gets the numbers of the other bank, which no
// process has bound. From then on, on_failure of the rule files decides about sources
// without a window, and the kernel's sets still admit sources with a window.
//
// # State on disk
//
// A one-time password, and each other thing that opens a door only once, is stored before
// it opens the door (replayGuard). An on_close command is stored before its on_open runs
// (commands). Both therefore survive if the daemon is killed: nothing opens a door twice,
// and each on_close runs.
//
// # Reconciliation
//
// At start, the daemon reads the windows of the kernel, with their remaining times, into
// its own record. Later the kernel can lack recorded windows only if another process has
// changed the table. Then the daemon puts the table back, with the windows from its
// record (reconcile). Kernels since Linux 6.9 let a process own its table, so that no other
// process can change it. There the daemon does not watch for changes.
//
// # Health
//
// If the daemon hangs, sources with a window wait until the queue "admitted" is full; the
// kernel accepts further packets without the daemon. For the watchdog of systemd,
// [Wall.Alive] reports a hang: it compares what was read and handled with the values at
// the previous call. A running reconciliation does not count as a hang, because the record
// of the daemon is then the only place that has the windows.
package wall
