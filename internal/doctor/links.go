package doctor

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// linkList lists the interfaces. A test replaces it.
var linkList = func() ([]netlink.Link, error) { return wholeDump(netlink.LinkList) }

// wholeDump makes a netlink dump again, up to twice, if what it lists changed meanwhile, so
// that the kernel interrupted it (NLM_F_DUMP_INTR of linux/netlink.h). The list of an
// interrupted dump may lack some items.
func wholeDump[T any](dump func() ([]T, error)) ([]T, error) {
	all, err := dump()
	for tries := 1; tries < 3 && errors.Is(err, netlink.ErrDumpInterrupted); tries++ {
		all, err = dump()
	}
	return all, err
}
