package sequence_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/knockwall/knockwall/internal/packet"
	"github.com/knockwall/knockwall/sequence"
)

// rollingVectors are test vectors for other clients: the knocks of a step, by the secret,
// the number of knocks and the range of ports. Another program has computed them. Those
// of narrow ranges skip nine ports each, because the step already has them.
var rollingVectors = []struct {
	secret      string
	step        int64
	first, last uint16
	knocks      []uint16
}{
	{"correct horse battery staple", 58_000_000, 20000, 29999, []uint16{22822, 24953, 28226, 28795}},
	{"correct horse battery staple", 58_000_001, 20000, 29999, []uint16{21593, 26096, 28905, 24427}},
	{"correct horse battery staple", 0, 20000, 29999, []uint16{21519, 24575, 22854, 21833}},
	{"correct horse battery staple", -1, 20000, 29999, []uint16{26656, 25728, 23819, 27789}},
	{"hipjazz", 58_000_000, 1, 65535, []uint16{61027, 51707, 46831}},
	{"hipjazz", 58_000_000, 80, 81, []uint16{81}},
	{"hipjazz", 58_000_000, 7000, 7008, []uint16{7000, 7007, 7006, 7001, 7005, 7008, 7003, 7002}},
	{longSecret, 1, 65000, 65535, []uint16{65142, 65469, 65131, 65527, 65270}},
	{"hipjazz", 1 << 40, 50000, 50064, []uint16{
		50035, 50054, 50018, 50056, 50022, 50034, 50010, 50003, 50048, 50038, 50057, 50006, 50001, 50053, 50020, 50051,
		50011, 50013, 50058, 50019, 50025, 50064, 50017, 50050, 50016, 50061, 50052, 50009, 50040, 50029, 50037, 50032,
	}},
}

// longSecret is the bytes from 1 to 100. It is longer than a block of SHA-256, so HMAC
// hashes it first.
var longSecret = func() string {
	b := make([]byte, 100)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return string(b)
}()

func TestRollingVectors(t *testing.T) {
	for _, v := range rollingVectors {
		for _, protocol := range []packet.Protocol{packet.TCP, packet.UDP} {
			r := sequence.Rolling{
				Key: []byte(v.secret), Length: len(v.knocks), Step: 30 * time.Second,
				Ports: packet.PortRange{First: v.first, Last: v.last, Protocol: protocol},
			}
			var want []packet.Port
			for _, n := range v.knocks {
				want = append(want, packet.Port{Number: n, Protocol: protocol})
			}
			if diff := cmp.Diff(want, r.Knocks(v.step)); diff != "" {
				t.Errorf("%.10q in step %d, %s (-want +got):\n%s", v.secret, v.step, r.Ports, diff)
			}
			if diff := cmp.Diff(want[:1], (&sequence.Rolling{Key: r.Key, Length: 1, Ports: r.Ports}).Knocks(v.step)); diff != "" {
				t.Errorf("the first alone (-want +got):\n%s", diff)
			}
		}
	}
}

// openssl computes the same by the rules of Rolling's documentation.
func TestRollingVectorsAreThoseOfOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl, which is not installed")
	}
	for _, v := range rollingVectors {
		var knocks []uint16
		for i := uint32(0); len(knocks) < len(v.knocks); i++ {
			message := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, uint64(v.step)), i)
			cmd := exec.Command(openssl, "dgst", "-sha256", "-mac", "HMAC", "-macopt", "hexkey:"+hex.EncodeToString([]byte(v.secret)), "-r")
			cmd.Stdin = strings.NewReader(string(message))
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var mac uint32
			if _, err := fmt.Sscanf(string(out[:8]), "%x", &mac); err != nil {
				t.Fatal(err)
			}
			size := uint32(v.last) - uint32(v.first) + 1
			if n := v.first + uint16(mac%size); !slices.Contains(knocks, n) {
				knocks = append(knocks, n)
			}
		}
		if diff := cmp.Diff(v.knocks, knocks); diff != "" {
			t.Errorf("%.10q in step %d (-vector +openssl):\n%s", v.secret, v.step, diff)
		}
	}
}

// No step has a port twice, because its second knock would be taken for a retransmission
// of the first. Each port is within the range, and both ends of the range occur.
func TestTheKnocksOfAStepDiffer(t *testing.T) {
	r := sequence.Rolling{Key: []byte("hipjazz"), Length: 8, Ports: packet.PortRange{First: 65519, Last: 65535, Protocol: packet.UDP}}
	met := map[uint16]bool{}
	for step := range int64(500) {
		knocks := r.Knocks(step)
		if len(knocks) != r.Length {
			t.Fatalf("step %d has %d knocks", step, len(knocks))
		}
		for i, k := range knocks {
			if !r.Ports.Contains(k) || slices.Contains(knocks[:i], k) {
				t.Errorf("step %d has %v", step, knocks)
			}
			met[k.Number] = true
		}
		if slices.Equal(knocks, r.Knocks(step+1)) {
			t.Errorf("step %d and the one after it have the same knocks", step)
		}
	}
	if len(met) != 17 {
		t.Errorf("of 17 ports %d are met", len(met))
	}
	other := r
	other.Key = []byte("hipjazy")
	if slices.Equal(r.Knocks(1), other.Knocks(1)) {
		t.Error("another secret has the same knocks")
	}
}

func TestStepsBeginWhereTheLastOneEnds(t *testing.T) {
	for _, length := range []time.Duration{5 * time.Second, 30 * time.Second, 7 * time.Second, time.Hour} {
		r := sequence.Rolling{Step: length}
		for _, step := range []int64{-400_000, -2, -1, 0, 1, 58_000_000} {
			begins := r.Begins(step)
			if begins.Unix() != step*int64(length/time.Second) || begins.Nanosecond() != 0 {
				t.Errorf("step %d of %s begins at %s", step, length, begins)
			}
			for at, want := range map[time.Time]int64{
				begins: step, begins.Add(-1): step - 1, begins.Add(1): step, begins.Add(length - 1): step, begins.Add(length): step + 1,
			} {
				if got := r.StepAt(at); got != want {
					t.Errorf("%d.%09d is in step %d of %s, want %d", at.Unix(), at.Nanosecond(), got, length, want)
				}
			}
		}
	}
	// The time zone and the monotonic reading of a time do not matter.
	r := sequence.Rolling{Step: 30 * time.Second}
	now := time.Now()
	if r.StepAt(now) != r.StepAt(now.In(time.FixedZone("", 5*3600+1800)).Round(0)) {
		t.Error("the step depends on the time zone")
	}
}
