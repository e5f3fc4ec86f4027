package systemd_test

import (
	"fmt"
	"log"
	"net"

	"github.com/knockwall/knockwall/systemd"
)

// Listen at the socket that systemd has handed over, or else at a port of one's own, and
// report readiness.
func Example() {
	l, unit, err := systemd.Listener()
	if err != nil {
		log.Fatal(err)
	}
	if l == nil {
		fmt.Println("no socket of systemd's")
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			log.Fatal(err)
		}
	} else {
		fmt.Println("the socket of", unit)
	}
	defer l.Close()

	service := systemd.NewService(func() string { return "2 doors guarded, 0 windows open" })
	service.Ready() // does nothing where systemd does not run the process
	defer service.Stopping()
	// Output: no socket of systemd's
}
