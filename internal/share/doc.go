// Package share is the companion of the daemon: it joins the control API of the local daemon
// to NATS, so that the hosts of a group have the same windows. Package lease decides what
// to tell whom; this package carries it.
//
// # Subjects
//
// Each member has a part of the group's subjects, and publishes nowhere else, which servers
// can enforce:
//
//	knockwall.GROUP.MEMBER.news          what has happened there, for all
//	knockwall.GROUP.MEMBER.beat          that it lives, and how much news it has sent
//	knockwall.GROUP.MEMBER.ask           it has just joined: everybody is to tell what happened there
//	knockwall.GROUP.MEMBER.ask.OTHER     it has missed something of OTHER, or wants to know all that OTHER knows
//	knockwall.GROUP.MEMBER.to.OTHER      the answer
//	knockwall.GROUP.MEMBER.ping.OTHER    it measures how long a message takes
//	knockwall.GROUP.MEMBER.pong.OTHER    the answer
//
// So a member needs the permissions to publish at knockwall.GROUP.MEMBER.> and to subscribe
// to knockwall.GROUP.>. Nothing is stored at the servers: a member that joins asks those that
// are there, and no quorum of servers is needed for anything.
//
// # Losses
//
// News is numbered. Who sees a gap in the numbers of a member, or hears in its beat of a
// number that it has not seen, asks that member.
package share
