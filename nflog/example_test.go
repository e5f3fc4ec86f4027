package nflog_test

import (
	"fmt"
	"log"
	"time"

	"github.com/knockwall/knockwall/nflog"
)

// printer prints each logged packet.
type printer struct{}

func (printer) Logged(prefix []byte, p nflog.Packet, data []byte) {
	fmt.Printf("%s: %s knocks at %s\n", prefix, p.Source, p.Port)
}
func (printer) Lost(n uint32)    { fmt.Printf("%d packets lost\n", n) }
func (printer) Failed(err error) { fmt.Println(err) }

// Print what rules such as "tcp dport 7000 log group 7100 prefix \"ssh\"" log. Add the
// rules after Listen has returned. Listen needs CAP_NET_ADMIN.
func ExampleListen() {
	l, err := nflog.Listen(7100, printer{})
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	time.Sleep(time.Minute)
}
