package otp_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/otp"
)

// vector is a password that openssl made.
type vector struct {
	key, source string
	minute      int64
	digits      string
}

// vectors were made with the openssl command below.
var vectors = []vector{
	{"foo", "192.0.2.1", 29000000, "2758f2694c298a442503234b407d46596a58022dfb928680cfc1928c36c24288"},
	{"hipjazz", "203.0.113.255", 29700123, "c0cd76bcc202dd7b6b3cba1c4459f1b03346ff63a2ca7976c3c72541ad8ef73c"},
	{"0123456789abcdef0123456789abcde", "2001:db8::1", 41, "f444d2de07e01f7d5b2b9581678b90991a8ae8bc571ea24fe23d4671efdbabed"},
	{"superawesome", "2001:db8:ffff::7", 29700123, "734c536bcd9389971fad9b0895d853a14764b702aba24f523081b561f9ffcdd6"},
}

func (v vector) addr() netip.Addr { return netip.MustParseAddr(v.source) }

// at returns a time of the vector's minute.
func (v vector) at(second time.Duration) time.Time { return time.Unix(v.minute*60, 0).Add(second) }

func TestDatagramsAreThoseOfOthers(t *testing.T) {
	for _, v := range vectors {
		for _, second := range []time.Duration{0, time.Minute - 1} {
			got := otp.Datagram([]byte(v.key), v.addr(), v.at(second))
			if want := v.digits + "\n"; string(got) != want {
				t.Errorf("%+v: %q, want %q", v, got, want)
			}
			if len(got) != otp.Size {
				t.Errorf("%+v: %d bytes", v, len(got))
			}
		}
	}
}

func TestOpensslMakesTheSameDigits(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("no openssl: only passwords that it made before are compared")
	}
	for _, v := range vectors {
		message := binary.LittleEndian.AppendUint32(v.addr().AsSlice(), uint32(v.minute))
		openssl := exec.Command("openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", "hexkey:"+hex.EncodeToString([]byte(v.key)))
		openssl.Stdin = bytes.NewReader(message)
		out, err := openssl.Output()
		if err != nil {
			t.Fatalf("%v: %v", openssl, err)
		}
		want := string(otp.Datagram([]byte(v.key), v.addr(), v.at(0)))
		if _, digits, _ := strings.Cut(string(out), "= "); digits != want {
			t.Errorf("%+v: openssl says %q, want %q", v, out, want)
		}
	}
}

func TestAMappedSourceIsTheIPv4OneAndAZoneIsNothing(t *testing.T) {
	key, now := []byte("foo"), time.Unix(1740000000, 0)
	for _, same := range [][2]string{{"192.0.2.1", "::ffff:192.0.2.1"}, {"fe80::1", "fe80::1%eth0"}, {"192.0.2.1", "::ffff:192.0.2.1%eth0"}} {
		a, b := netip.MustParseAddr(same[0]), netip.MustParseAddr(same[1])
		forA, forB := otp.Datagram(key, a, now), otp.Datagram(key, b, now)
		if !bytes.Equal(forA, forB) {
			t.Errorf("%s and %s differ", a, b)
		}
		if _, _, ok := otp.NewVerifier(key, 0).Verify(forA, b, now); !ok {
			t.Errorf("that of %s is refused from %s", a, b)
		}
	}
}
