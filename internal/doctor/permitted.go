package doctor

import (
	"fmt"
	"os"
)

// TakesRoot ends the reason why a check was not made, if root can make it.
const TakesRoot = "takes root"

// notPermitted says that a check was not made because the kernel has refused to do it, with
// this error. Root can be refused, too: in a container, or without a capability.
func notPermitted(what string, refused error) error {
	if os.Geteuid() == 0 {
		return fmt.Errorf("%s is not permitted here: %w", what, refused)
	}
	return fmt.Errorf("%s "+TakesRoot, what)
}
