package ruleset

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
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
	{"tell this host's addresses in nftables", "CONFIG_NFT_FIB_INET", rule{toThisHost}},
	{"log packets from nftables", "CONFIG_NFT_LOG and CONFIG_NETFILTER_NETLINK_LOG", rule{logTo(65535, "probe")}},
	{"limit rates in nftables", "CONFIG_NFT_LIMIT", rule{limit(1, 1)}},
	{"reject packets in nftables", "CONFIG_NFT_REJECT_INET", rule{unreachable}},
}

// probeQueue finds out whether nftables can queue by themselves (true) or by
// x_tables' NFQUEUE (false).
func probeQueue(conn *nftables.Conn) (bool, error) {
	queue := rule{queueTo(65535, false)}
	err := probe(conn, queue, true)
	if err == nil {
		return true, nil
	}
	if errors.Is(err, unix.EPERM) {
		return false, ErrPrivilege
	}
	if err := probe(conn, queue, false); err != nil {
		return false, &MissingFeatureError{
			"queue packets from nftables",
			"CONFIG_NETFILTER_NETLINK_QUEUE, and either CONFIG_NFT_QUEUE or CONFIG_NFT_COMPAT with CONFIG_NETFILTER_XT_TARGET_NFQUEUE", err}
	}
	return false, nil
}

// probe tries a rule in a table that comes and goes within one transaction, in
// a chain that no packet passes.
func probe(conn *nftables.Conn, r rule, nativeQueue bool) error {
	b := &batch{conn: conn, table: conn.AddTable(tableNamed("knockwall_probe")), nativeQueue: nativeQueue}
	b.addRule(conn.AddChain(&nftables.Chain{Name: "probe", Table: b.table}), r)
	conn.DelTable(b.table)
	return conn.Flush()
}

// explain turns the kernel's refusal of a table into the feature that it lacks,
// if that is the reason.
func (k *Kernel) explain(err error) error {
	if errors.Is(err, unix.EPERM) {
		return ErrPrivilege
	}
	for _, f := range required {
		if probeErr := probe(k.conn, f.rule, k.nativeQueue); probeErr != nil && !errors.Is(probeErr, unix.EPERM) {
			return &MissingFeatureError{f.name, f.options, probeErr}
		}
	}
	return err
}
