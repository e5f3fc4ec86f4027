package wall

import (
	"fmt"
	"slices"

	"github.com/knockwall/knockwall/internal/effective"
	"github.com/knockwall/knockwall/internal/nft"
	"github.com/knockwall/knockwall/ruleset"
)

// InUseError says that another process has bound a group or queue of the wall.
type InUseError struct {
	What string // "NFLOG group 7100", "queue 7100"
	Key  string // the attribute in the rule files that sets the number
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("%s is in use by another process. `knockwall status` shows whether another knockwall runs. "+
		"If another program uses it, set %s in the rule files to another number", e.What, e.Key)
}

// socketsFor returns the sockets for a configuration: the present ones, or new ones that
// no rule uses yet if the numbers differ or there are none.
func (r *rules) socketsFor(c *effective.Config, standing *nft.Standing) (*sockets, error) {
	present := r.packets.present()
	for bank := range 2 {
		if n := nft.NumbersOf(c.Wall, bank); present != nil && present.numbers == n {
			return present, nil
		}
	}
	for bank := range 2 {
		n := nft.NumbersOf(c.Wall, bank)
		if (standing == nil || !standing.Names(n)) && (present == nil || !overlap(present.numbers, n)) {
			return r.packets.listen(n)
		}
	}
	return nil, fmt.Errorf("the installed table inet %s uses some of the same group and queue numbers: "+
		"set nflog_group and queue in the rule files to numbers that are further away", c.Wall.Table)
}

func overlap(a, b nft.Numbers) bool {
	return a.LogGroup == b.LogGroup || slices.ContainsFunc(queuesOf(a), func(number uint16) bool { return slices.Contains(queuesOf(b), number) })
}

func queuesOf(n nft.Numbers) []uint16 { return []uint16{n.Admitted, n.Strangers, n.Excess} }

// checkFree returns an error if another process has bound a group or queue that this wall
// may use. At the first start it also returns an error if the table of another wall uses
// them: a second daemon would take the packets of the first.
func (r *rules) checkFree(wall *ruleset.Wall) error {
	for bank := range 2 {
		if err := r.inUse(nft.NumbersOf(wall, bank)); err != nil {
			return err
		}
	}
	if r.packets.present() != nil {
		return nil
	}
	others, err := r.edges.Kernel.Others(wall.Table)
	if err != nil {
		return err
	}
	for _, other := range others {
		if other.Names(nft.NumbersOf(wall, 0)) || other.Names(nft.NumbersOf(wall, 1)) {
			return fmt.Errorf("the table inet %[1]s belongs to another wall and uses the same group and queue numbers: "+
				"delete it with `nft delete table inet %[1]s`, or set nflog_group and queue in the rule files to other numbers", other.Table)
		}
	}
	return nil
}

// inUse returns an [*InUseError] if another process has bound any of the numbers.
func (r *rules) inUse(n nft.Numbers) error {
	present := r.packets.present()
	if present == nil || n.LogGroup != present.numbers.LogGroup {
		inUse, err := r.edges.LogInUse(n.LogGroup)
		if err != nil {
			return err
		}
		if inUse {
			return &InUseError{fmt.Sprintf("NFLOG group %d", n.LogGroup), "nflog_group"}
		}
	}
	for _, number := range queuesOf(n) {
		if present != nil && slices.Contains(queuesOf(present.numbers), number) {
			continue
		}
		inUse, err := r.edges.QueueInUse(number)
		if err != nil {
			return err
		}
		if inUse {
			return &InUseError{fmt.Sprintf("queue %d", number), "queue"}
		}
	}
	return nil
}
