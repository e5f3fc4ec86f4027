//go:build linux

package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// ErrPrivilege says that only root, or a process with CAP_NET_ADMIN, may change the
// kernel's rules.
var ErrPrivilege = errors.New("changing the firewall needs root, or the capability CAP_NET_ADMIN: " +
	"try it with sudo, or see it at work without root in `knockwall demo`")

// MissingFeatureError names a kernel feature that the wall needs and this kernel lacks.
type MissingFeatureError struct {
	Feature string // what the wall needs it for, as a verb phrase
	Options string // the kernel's build options (CONFIG_*) that provide it
	Err     error  // the kernel's error
}

func (e *MissingFeatureError) Error() string {
	return fmt.Sprintf("this kernel cannot %s: it needs %s, built in or as a module that is installed (the kernel says: %v)",
		e.Feature, e.Options, e.Err)
}

func (e *MissingFeatureError) Unwrap() error { return e.Err }

// feature is something that a kernel may lack, with a rule that needs it.
type feature struct {
	name    string
	options string
	rule    rule
}

// required are the features that every wall needs, besides queueing.
var required = []feature{
	{"follow connections in nftables", "CONFIG_NFT_CT and CONFIG_NF_CONNTRACK", rule{ofKnownConnection}},
	{"label connections in nftables", "CONFIG_NF_CONNTRACK_LABELS", rule{noteJudged}},
	{"tell this host's addresses in nftables", "CONFIG_NFT_FIB_INET", rule{toThisHost}},
	{"log packets from nftables", "CONFIG_NFT_LOG and CONFIG_NETFILTER_NETLINK_LOG", rule{logTo(65535, "probe", packet.SnapLen)}},
	{"limit rates in nftables", "CONFIG_NFT_LIMIT", rule{limit(1, 1)}},
	{"reject packets in nftables", "CONFIG_NFT_REJECT_INET", rule{unreachable}},
}

// Features are the optional features of a kernel.
type Features struct {
	// NativeQueue: nftables has the expression "queue". Without it, packets are queued by
	// the NFQUEUE target of x_tables.
	NativeQueue bool
	// Ownership: a process can own a table that outlives it (Linux 6.9). Without it, any
	// process with CAP_NET_ADMIN can delete the wall.
	Ownership bool
	// UDPTimeout: a table can set how long conntrack keeps a silent UDP flow
	// (CONFIG_NF_CONNTRACK_TIMEOUT). Without it that is 30 s, or 120 s once both sides
	// have sent for two seconds.
	UDPTimeout bool
}

func probeFeatures(conn *nftables.Conn) (f Features, err error) {
	queue := rule{queueTo(65535, false)}
	err = probe(conn, 0, queue, Features{NativeQueue: true})
	if errors.Is(err, unix.EPERM) {
		return f, ErrPrivilege
	}
	f.NativeQueue = err == nil
	if err != nil {
		if err := probe(conn, 0, queue, Features{}); err != nil {
			return f, &MissingFeatureError{
				"queue packets from nftables",
				"CONFIG_NETFILTER_NETLINK_QUEUE, and either CONFIG_NFT_QUEUE or CONFIG_NFT_COMPAT with CONFIG_NETFILTER_XT_TARGET_NFQUEUE", err}
		}
	}
	f.Ownership = probe(conn, nftables.TableFlagOwner|nftables.TableFlagPersist, queue, f) == nil
	f.UDPTimeout = errors.Is(probeTimeout(conn), unix.EOPNOTSUPP)
	return f, nil
}

// probe tries a rule in a transaction that changes nothing, as its last command fails: it makes
// a table that must not be there yet. So the generation of the tables stays the same.
func probe(conn *nftables.Conn, flags nftables.TableFlags, r rule, f Features) error {
	table := tableNamed("knockwall_probe")
	table.Flags = flags
	b := &batch{conn: conn, table: conn.AddTable(table), features: f}
	b.addRule(conn.AddChain(&nftables.Chain{Name: "probe", Table: b.table}), r)
	conn.CreateTable(b.table)
	if err := conn.Flush(); !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// probeTimeout tries to make a timeout object for a protocol that conntrack does not
// know. A kernel that knows such objects rejects the protocol (EOPNOTSUPP). Any other
// kernel rejects the object. An object that was made would have to be deleted again, and
// then newer kernels drop all packets that wait in queues.
func probeTimeout(conn *nftables.Conn) error {
	const experimental = 253 // RFC 3692, section 2.1
	table := conn.AddTable(tableNamed("knockwall_probe"))
	addTimeout(conn, &nftables.NamedObj{Table: table, Name: "probe", Type: nftables.ObjTypeCtTimeout,
		Obj: &expr.CtTimeout{L3Proto: unix.NFPROTO_IPV4, L4Proto: experimental}})
	conn.DelTable(table)
	return conn.Flush()
}

// explain turns the kernel's refusal to change a table into its cause.
func (k *Kernel) explain(table string, err error) error {
	if errors.Is(err, unix.EPERM) {
		if probe(k.conn, 0, rule{accept}, Features{}) != nil {
			return ErrPrivilege
		}
		return fmt.Errorf("another running process owns the table inet %[1]s, and nobody else can change it: "+
			"`nft list table inet %[1]s` names the process in its first line", table)
	}
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("%w: one transaction has to hold the whole table, and net.core.wmem_max limits its size. "+
			"Start knockwall with CAP_NET_ADMIN in the initial user namespace, which has no such limit, or raise that number there", err)
	}
	for _, f := range required {
		if probeErr := probe(k.conn, 0, f.rule, Features{NativeQueue: k.features.NativeQueue}); probeErr != nil && !errors.Is(probeErr, unix.EPERM) {
			return &MissingFeatureError{f.name, f.options, probeErr}
		}
	}
	return err
}
