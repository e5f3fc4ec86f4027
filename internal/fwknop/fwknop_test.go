package fwknop_test

import (
	"bytes"
	"encoding/base64"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/packet"
)

// The keys of testdata/datagrams.txt.
const (
	cipherKey = "9uBaXTpu7gZxzxJWCBcc2jajIavpXPA847GX1ZYYGrY="
	hmacKey   = "TPZ3jmyNthUPxqzFl0NIQmlMZfa+ZSSiJZS3F6f6xhS/+39iK2GSvhGKOVUd6iSV+5GoiTT1dg+Pcrps3bC9oQ=="
)

func tcp(number uint16) packet.Port { return packet.Port{Number: number, Protocol: packet.TCP} }
func udp(number uint16) packet.Port { return packet.Port{Number: number, Protocol: packet.UDP} }

func keys(t testing.TB, kind fwknop.HMAC) fwknop.Keys {
	t.Helper()
	cipher, err := fwknop.ParseKey([]byte(cipherKey), fwknop.MaxKey)
	if err != nil {
		t.Fatal(err)
	}
	mac, err := fwknop.ParseKey([]byte(hmacKey), fwknop.MaxHMACKey)
	if err != nil {
		t.Fatal(err)
	}
	return fwknop.Keys{Cipher: cipher, HMAC: mac, Kind: kind}
}

// two are datagrams of the client, with their content.
var two = []struct {
	datagram string
	want     fwknop.Request
}{
	{
		"/N8X9rAdhYYhDHGKSBdCUdy1pRfA+20NE65O/46WiFl2L4A+IH5Zj44vt3QkI4f+F4a5oAy5zsAcVYJFyBvYRjSvP1GK1qnPeX08341i+3Xw8vjE5Qt6pyADYvm1T4JAd6K6nOTunnssQoKgq7Q6I62WQyEdPbIqAll45ByA+6SMtxfDeNohs01Qd+08Zd9gdzCypT0iJrzQ",
		fwknop.Request{
			User: "alice", Time: time.Unix(1795819879, 0), Kind: fwknop.Access, Source: netip.MustParseAddr("192.0.2.7"), Ports: []packet.Port{tcp(22)},
		},
	},
	{
		"+smnb6Aw6mhc3xIlu7WdmzhPRynL0wD+fGpvEMkt2yNIjk1UYVDnToigbz8lTQ1Ejup14ROYJPXGt0PCLCxW2b66+FzskvH6WjwZvBZG/+A7MxrZMmAxEn2XLoMqYCfNTA+HhgpgCuSLiyQpid+RmNBtZXAbIi2Kad9dpS+ZBEXUpAasqPp/LhEtIc+ud47MpVIgsnBEgGuQdvVsAqvEOz22ULCXw1sNnfio1K4GNgLu9amkMXJM0UY",
		fwknop.Request{
			User: "alice", Time: time.Unix(1795819879, 0), Kind: fwknop.NAT, Source: netip.MustParseAddr("192.0.2.7"), Ports: []packet.Port{tcp(22)},
			To: fwknop.NATTarget{Host: "10.1.2.3", Port: 22}, Timeout: 2 * time.Minute,
		},
	},
}

var anyTime = cmpopts.IgnoreFields(fwknop.Request{}, "Time")

func diff(want, got fwknop.Request, options ...cmp.Option) string {
	return cmp.Diff(want, got, append(options, cmpopts.EquateComparable(netip.Addr{}, packet.Port{}))...)
}

func TestTheFieldsOfDatagramsAreRead(t *testing.T) {
	for _, d := range two {
		got, _, err := fwknop.NewReader(keys(t, fwknop.SHA256)).Read([]byte(d.datagram))
		if err != nil {
			t.Fatal(err)
		}
		if diff := diff(d.want, got, anyTime); diff != "" {
			t.Error(diff)
		}
	}
	if got, _, _ := fwknop.NewReader(keys(t, fwknop.SHA256)).Read([]byte(two[0].datagram)); !got.Time.Equal(two[0].want.Time) {
		t.Errorf("sent at %s", got.Time)
	}
}

// recorded is a datagram of testdata/datagrams.txt.
type recorded struct {
	kind     fwknop.HMAC
	datagram []byte
	content  string // without its digest
}

func recordings(t testing.TB) (all []recorded) {
	t.Helper()
	text, err := os.ReadFile("testdata/datagrams.txt")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	for pair := range slices.Chunk(lines, 2) {
		name, datagram, _ := strings.Cut(pair[0], " ")
		kind, err := fwknop.ParseHMAC(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, recorded{kind, []byte(datagram), pair[1]})
	}
	if len(all) < 20 {
		t.Fatalf("only %d datagrams", len(all))
	}
	return all
}

// The client says what it has put into a datagram.
func TestDatagramsOfEveryHMACModeAndTypeAreRead(t *testing.T) {
	for _, d := range recordings(t) {
		got, _, err := fwknop.NewReader(keys(t, d.kind)).Read(d.datagram)
		if err != nil {
			t.Errorf("%s: %v", d.content, err)
			continue
		}
		fields := strings.Split(d.content, ":")
		if !got.Time.Equal(parseUnix(t, fields[2])) || got.User != "alice" {
			t.Errorf("%s: %+v", d.content, got)
		}
		message, _ := base64.RawStdEncoding.DecodeString(fields[5])
		want := map[string]fwknop.Request{
			"1 192.0.2.7,tcp/22":        {Kind: fwknop.Access, Ports: []packet.Port{tcp(22)}},
			"1 192.0.2.7,tcp/22,udp/53": {Kind: fwknop.Access, Ports: []packet.Port{tcp(22), udp(53)}},
			"1 0.0.0.0,tcp/22":          {Kind: fwknop.Access, Ports: []packet.Port{tcp(22)}},
			"3 192.0.2.7,tcp/22":        {Kind: fwknop.Access, Ports: []packet.Port{tcp(22)}, Timeout: 2 * time.Minute},
			"2 192.0.2.7,tcp/22":        {Kind: fwknop.NAT, Ports: []packet.Port{tcp(22)}, To: got.To},
			"4 192.0.2.7,tcp/22":        {Kind: fwknop.NAT, Ports: []packet.Port{tcp(22)}, To: got.To, Timeout: time.Minute},
			"5 192.0.2.7,tcp/55555":     {Kind: fwknop.LocalNAT, Ports: []packet.Port{tcp(55555)}, To: got.To},
			"6 192.0.2.7,tcp/55555":     {Kind: fwknop.LocalNAT, Ports: []packet.Port{tcp(55555)}, To: got.To, Timeout: time.Minute},
			"0 192.0.2.7,id":            {Kind: fwknop.Command},
		}
		request, ok := want[fields[4]+" "+string(message)]
		if !ok {
			t.Errorf("%s %s is not expected", fields[4], message)
			continue
		}
		request.User = "alice"
		if !strings.HasPrefix(string(message), "0.0.0.0") {
			request.Source = netip.MustParseAddr("192.0.2.7")
		}
		if diff := diff(request, got, anyTime); diff != "" {
			t.Errorf("%s: %s", d.content, diff)
		}
		if target := got.To.String(); got.Kind == fwknop.NAT && target != "10.1.2.3 port 22" && target != "host.example.org port 22" ||
			got.Kind == fwknop.LocalNAT && target != "127.0.0.1 port 22" {
			t.Errorf("%s: it leads to %s", d.content, target)
		}
	}
}

func parseUnix(t *testing.T, s string) time.Time {
	t.Helper()
	var n int64
	for _, c := range s {
		n = 10*n + int64(c-'0')
	}
	return time.Unix(n, 0)
}

// Every datagram has one of the sizes and first bytes that the kernel lets through.
func TestSizesAndFirstBytesAreThoseOfDatagrams(t *testing.T) {
	for _, d := range recordings(t) {
		if !slices.Contains(d.kind.Sizes(), uint16(len(d.datagram))) || !strings.Contains(fwknop.FirstBytes, string(d.datagram[:1])) {
			t.Errorf("%d bytes that begin with %q are not expected of %s", len(d.datagram), d.datagram[0], d.kind)
		}
	}
	if sizes := fwknop.SHA256.Sizes(); !slices.Equal(sizes[:9], []uint16{140, 161, 183, 204, 225, 247, 268, 289, 311}) || slices.Max(sizes) > fwknop.MaxSize || !slices.IsSorted(sizes) {
		t.Errorf("%v", sizes)
	}
}

// No changed byte passes, not even one that changes only the spare bits of a last character.
func TestEachByteCounts(t *testing.T) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\n\x00\xff"
	for _, d := range []string{two[0].datagram, two[1].datagram} {
		reader := fwknop.NewReader(keys(t, fwknop.SHA256))
		for i := range d {
			for _, c := range []byte(alphabet) {
				changed := []byte(d)
				same := changed[i] == c
				changed[i] = c
				if _, _, err := reader.Read(changed); (err == nil) != same || !same && err != fwknop.ErrNotAuthentic {
					t.Fatalf("%q for byte %d: %v", c, i, err)
				}
			}
		}
	}
}

func TestWhatHasNoValidHMACIsNotAuthentic(t *testing.T) {
	good := two[0].datagram
	withoutHMAC := good[:len(good)-43]
	other := keys(t, fwknop.SHA256)
	other.HMAC = append(bytes.Clone(other.HMAC), 0, 1)
	for name, test := range map[string]struct {
		keys     fwknop.Keys
		datagram string
	}{
		"nothing":                 {keys(t, fwknop.SHA256), ""},
		"one byte":                {keys(t, fwknop.SHA256), "/"},
		"another key":             {other, good},
		"another kind":            {keys(t, fwknop.SHA3x256), good},
		"a longer kind":           {keys(t, fwknop.SHA512), good},
		"no HMAC":                 {keys(t, fwknop.SHA256), withoutHMAC},
		"the first characters":    {keys(t, fwknop.SHA256), "U2FsdGVkX1" + good},
		"a newline":               {keys(t, fwknop.SHA256), good + "\n"},
		"a byte less":             {keys(t, fwknop.SHA256), good[:len(good)-1]},
		"too much":                {keys(t, fwknop.SHA256), good + strings.Repeat("A", 65000)},
		"no more than characters": {keys(t, fwknop.SHA256), strings.Repeat("/", fwknop.MinSize)},
	} {
		if _, _, err := fwknop.NewReader(test.keys).Read([]byte(test.datagram)); err != fwknop.ErrNotAuthentic {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnotherCipherKeyIsTold(t *testing.T) {
	k := keys(t, fwknop.SHA256)
	k.Cipher = []byte("another")
	_, _, err := fwknop.NewReader(k).Read([]byte(two[0].datagram))
	if err == nil || !strings.Contains(err.Error(), "KEY_BASE64") {
		t.Errorf("%v", err)
	}
}

func TestTheIDIsThatOfTheContent(t *testing.T) {
	ids := map[fwknop.ID]bool{}
	for _, d := range recordings(t) {
		_, id, err := fwknop.NewReader(keys(t, d.kind)).Read(d.datagram)
		if err != nil {
			t.Fatal(err)
		}
		_, again, _ := fwknop.NewReader(keys(t, d.kind)).Read(d.datagram)
		if again != id {
			t.Errorf("%x and %x are of the same datagram", id, again)
		}
		ids[id] = true
	}
	if len(ids) != len(recordings(t)) {
		t.Errorf("%d IDs for %d contents", len(ids), len(recordings(t)))
	}
}

func TestOwnDatagramsAreRead(t *testing.T) {
	for kind := fwknop.SHA256; kind <= fwknop.SHA3x512; kind++ {
		for _, r := range []fwknop.Request{
			{User: "a", Kind: fwknop.Access, Ports: []packet.Port{tcp(1)}},
			{User: "alice", Kind: fwknop.Access, Source: netip.MustParseAddr("2001:db8::1"), Ports: []packet.Port{tcp(65535), udp(53)}},
			{User: "alice@host", Kind: fwknop.Access, Source: netip.MustParseAddr("192.0.2.7"), Ports: []packet.Port{tcp(22)}, Timeout: time.Hour},
		} {
			r.Time = time.Unix(1795819879, 0)
			datagram, err := fwknop.Datagram(keys(t, kind), r)
			if err != nil {
				t.Fatal(err)
			}
			got, _, err := fwknop.NewReader(keys(t, kind)).Read(datagram)
			if err != nil {
				t.Fatalf("%s of %d bytes: %v", kind, len(datagram), err)
			}
			if diff := diff(r, got); diff != "" {
				t.Error(diff)
			}
			if !slices.Contains(kind.Sizes(), uint16(len(datagram))) {
				t.Errorf("%s has %d bytes", kind, len(datagram))
			}
		}
	}
}

func TestNoTwoOwnDatagramsAreTheSame(t *testing.T) {
	r := fwknop.Request{User: "alice", Kind: fwknop.Access, Ports: []packet.Port{tcp(22)}, Time: time.Unix(1795819879, 0)}
	ids := map[fwknop.ID]bool{}
	for range 100 {
		datagram, err := fwknop.Datagram(keys(t, fwknop.SHA256), r)
		if err != nil {
			t.Fatal(err)
		}
		_, id, err := fwknop.NewReader(keys(t, fwknop.SHA256)).Read(datagram)
		if err != nil {
			t.Fatal(err)
		}
		ids[id] = true
	}
	if len(ids) != 100 {
		t.Errorf("%d IDs of 100 datagrams", len(ids))
	}
}

func TestWhatCannotBeSentIsAnError(t *testing.T) {
	good := fwknop.Request{User: "alice", Kind: fwknop.Access, Ports: []packet.Port{tcp(22)}}
	for name, change := range map[string]func(*fwknop.Keys, *fwknop.Request){
		"no key":          func(k *fwknop.Keys, _ *fwknop.Request) { k.Cipher = nil },
		"no HMAC key":     func(k *fwknop.Keys, _ *fwknop.Request) { k.HMAC = nil },
		"a long key":      func(k *fwknop.Keys, _ *fwknop.Request) { k.Cipher = make([]byte, fwknop.MaxKey+1) },
		"a long HMAC key": func(k *fwknop.Keys, _ *fwknop.Request) { k.HMAC = make([]byte, fwknop.MaxHMACKey+1) },
		"no user":         func(_ *fwknop.Keys, r *fwknop.Request) { r.User = "" },
		"a user's colour": func(_ *fwknop.Keys, r *fwknop.Request) { r.User = "\x1b[31m" },
		"no ports":        func(_ *fwknop.Keys, r *fwknop.Request) { r.Ports = nil },
		"a command":       func(_ *fwknop.Keys, r *fwknop.Request) { r.Kind = fwknop.Command },
		"too many ports":  func(_ *fwknop.Keys, r *fwknop.Request) { r.Ports = slices.Repeat(r.Ports, 200) },
	} {
		k, r := keys(t, fwknop.SHA256), good
		change(&k, &r)
		if datagram, err := fwknop.Datagram(k, r); err == nil {
			t.Errorf("%s: %s", name, datagram)
		}
	}
}

func TestParseKey(t *testing.T) {
	for text, want := range map[string]string{
		"aGlwamF6eg==": "hipjazz", "aGlwamF6eg": "hipjazz", "//8=": "\xff\xff",
		"": "", "hip jazz": "", "aGlwamF6eg==x": "", base64.StdEncoding.EncodeToString(make([]byte, 33)): "",
	} {
		key, err := fwknop.ParseKey([]byte(text), fwknop.MaxKey)
		if string(key) != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, key, err)
		}
		if err != nil && text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
}

func TestGarbageCostsNoAllocation(t *testing.T) {
	for kind := fwknop.SHA256; kind <= fwknop.SHA3x512; kind++ {
		reader := fwknop.NewReader(keys(t, kind))
		for _, garbage := range [][]byte{nil, bytes.Repeat([]byte("/"), fwknop.MinSize), bytes.Repeat([]byte("/"), fwknop.MaxSize), make([]byte, fwknop.MaxSize)} {
			if n := testing.AllocsPerRun(100, func() { reader.Read(garbage) }); n != 0 {
				t.Errorf("%s, %d bytes: %v allocations", kind, len(garbage), n)
			}
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for _, bench := range []struct {
		name     string
		datagram []byte
		err      error
	}{
		{"good", []byte(two[0].datagram), nil},
		{"garbage", bytes.Repeat([]byte("/"), 204), fwknop.ErrNotAuthentic},
		{"long garbage", bytes.Repeat([]byte("/"), 1500), fwknop.ErrNotAuthentic},
	} {
		b.Run(bench.name, func(b *testing.B) {
			reader := fwknop.NewReader(keys(b, fwknop.SHA256))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := reader.Read(bench.datagram); err != bench.err {
					b.Fatal(err)
				}
			}
		})
	}
}
