//go:build linux

package ruleset

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/knockwall/knockwall/internal/packet"
)

// ErrPrivilege is why the kernel lets nobody but root, or who has the
// capability CAP_NET_ADMIN, change its rules.
var ErrPrivilege = errors.New("changing the firewall needs root, or the capability CAP_NET_ADMIN: " +
	"try it with sudo, or see it at work without in `knockwall demo`")

// MissingFeatureError names a part of the kernel that the wall needs and this
// kernel lacks.
type MissingFeatureError struct {
	Feature string // what it is for
	Options string // the kernel's build options that would bring it
	Err     error  // what the kernel said
}

func (e *MissingFeatureError) Error() string {
	return fmt.Sprintf("this kernel cannot %s: it needs %s, built in or as a module that is installed (the kernel says: %v)",
		e.Feature, e.Options, e.Err)
}

func (e *MissingFeatureError) Unwrap() error { return e.Err }

// feature is something that a kernel may lack, and a rule that needs it.
type feature struct {
	name    string
	options string
	rule    rule
}

// required are the features without which no wall stands, other than queueing.
var required = []feature{
	{"follow connections in nftables", "CONFIG_NFT_CT and CONFIG_NF_CONNTRACK", rule{ofKnownConnection}},
	{"label connections in nftables", "CONFIG_NF_CONNTRACK_LABELS", rule{noteJudged}},
	{"tell this host's addresses in nftables", "CONFIG_NFT_FIB_INET", rule{toThisHost}},
	{"log packets from nftables", "CONFIG_NFT_LOG and CONFIG_NETFILTER_NETLINK_LOG", rule{logTo(65535, "probe", packet.SnapLen)}},
	{"limit rates in nftables", "CONFIG_NFT_LIMIT", rule{limit(1, 1)}},
	{"reject packets in nftables", "CONFIG_NFT_REJECT_INET", rule{unreachable}},
}

// Features are those that a kernel may lack without harm.
type Features struct {
	// NativeQueue: nftables have the expression "queue"; else packets are queued by
	// x_tables' NFQUEUE target.
	NativeQueue bool
	// Ownership: a table can be one process's own, and outlive it (Linux 6.9);
	// else anybody with the privilege can delete the wall.
	Ownership bool
	// UDPTimeout: a table can say how long conntrack keeps a UDP flow that is silent
	// (CONFIG_NF_CONNTRACK_TIMEOUT); else it does so for 30 s, and for 120 s once both
	// sides have gone on for two.
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

// probe tries a rule in a table that comes and goes within one transaction, in
// a chain that no packet passes.
func probe(conn *nftables.Conn, flags nftables.TableFlags, r rule, f Features) error {
	table := tableNamed("knockwall_probe")
	table.Flags = flags
	b := &batch{conn: conn, table: conn.AddTable(table), features: f}
	b.addRule(conn.AddChain(&nftables.Chain{Name: "probe", Table: b.table}), r)
	conn.DelTable(b.table)
	return conn.Flush()
}

// probeTimeout asks for a time-out object of a protocol that conntrack does not know. A
// kernel that knows such objects refuses the protocol (EOPNOTSUPP), and any other the
// object. One that was made would have to go again, upon which newer kernels drop all
// packets that wait in queues.
func probeTimeout(conn *nftables.Conn) error {
	const experimental = 253 // RFC 3692, section 2.1
	table := conn.AddTable(tableNamed("knockwall_probe"))
	addTimeout(conn, &nftables.NamedObj{Table: table, Name: "probe", Type: nftables.ObjTypeCtTimeout,
		Obj: &expr.CtTimeout{L3Proto: unix.NFPROTO_IPV4, L4Proto: experimental}})
	conn.DelTable(table)
	return conn.Flush()
}

// explain turns the kernel's refusal to change a table into the reason why.
func (k *Kernel) explain(table string, err error) error {
	if errors.Is(err, unix.EPERM) {
		if probe(k.conn, 0, rule{accept}, Features{}) != nil {
			return ErrPrivilege
		}
		return fmt.Errorf("the table inet %[1]s is another process's own, which runs and lets nobody else change it: "+
			"`nft list table inet %[1]s` names it in its first line", table)
	}
	for _, f := range required {
		if probeErr := probe(k.conn, 0, f.rule, Features{NativeQueue: k.features.NativeQueue}); probeErr != nil && !errors.Is(probeErr, unix.EPERM) {
			return &MissingFeatureError{f.name, f.options, probeErr}
		}
	}
	return err
}
