package methods

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/integration/lab"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/methods"
	"github.com/knockwall/knockwall/internal/packet"
)

func init() { methods.Kinds = append(methods.Kinds, &watchwords) }

// watchwords is a method that only these tests have: watchword = 9999 opens the door to a
// source that sends one word to that UDP port. It shows that a method needs one file, and
// the line above.
var watchwords = method.Kind{Name: "watchword", Attribute: func(r method.Reader, _ *method.Door, e hcl.Expression) method.Method {
	text, ok := r.Value(e)
	port, err := packet.ParsePort(text + "/udp")
	if ok && err != nil {
		r.Fail(e, "Not a port", "Write one from 1 to 65535.")
	}
	return watchword{port}
}}

type watchword struct{ port packet.Port }

const theWord = "swordfish"

func (watchword) Name() string { return watchwords.Name }

func (watchword) Traits() method.Traits { return method.Traits{} }

func (watchword) Describe(time.Duration) string { return "a word" }

func (w watchword) Changes(former method.Method) (c method.Changes) {
	c.Value("watchword", former.(watchword).port, w.port)
	return c
}

func (watchword) Advise(method.Reader, []method.Door, int) {}

func (w watchword) Verifier() method.Verifier { return w }

func (w watchword) Ports() (fixed, chosen []packet.PortRange) {
	return packet.Ranges([]packet.Port{w.port}), nil
}

func (w watchword) Resolve(time.Time) (method.State, error) {
	return method.State{Datagrams: []method.Datagram{{Port: w.port, Sizes: []method.Sizes{method.Exactly(uint16(len(theWord)))}, Cost: 1}}}, nil
}

func (watchword) Verify(datagram []byte, _ netip.Addr, now time.Time) method.Meaning {
	if !bytes.Equal(datagram, []byte(theWord)) {
		return method.Meaning{Code: "wrong-word", Reason: "another word"}
	}
	return method.Meaning{Action: method.Open, Code: "word", Reason: "the word", Once: method.Use{Begins: now, Kind: "word"}}
}

// A method that is added with a file of its own and one line works in rule files, in the
// kernel and in the status.
func TestAMethodIsOneFileAndOneLine(t *testing.T) {
	t.Parallel()
	for _, server := range []netip.Addr{lab.Server4, lab.Server6} {
		t.Run(fmt.Sprint(server), func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			l.ServeTCP(22)
			d := l.RunTestBinary("door \"ssh\" {\n ports = [22]\n watchword = 9999\n}\n")
			guest := lab.Source(1, server)
			l.SendDatagram(guest, server, 9999, "swordfisk")
			d.WaitFor("reset", "code=wrong-word")
			if l.AdmitsAtOnce(guest, server, 22) {
				t.Error("another word opens the door")
			}
			l.SendDatagram(guest, server, 9999, theWord)
			d.WaitFor("opened", "source="+guest.String()+" ")
			if !l.AdmitsAtOnce(guest, server, 22) {
				t.Error("the word does not open the door")
			}
			if by := d.Status().Doors[0].OpensBy; !slices.Equal(by, []string{"watchword"}) {
				t.Errorf("the status says that %q opens the door", by)
			}
		})
	}
}
