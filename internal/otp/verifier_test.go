package otp_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/otp"
)

func TestVerifyTakesThePasswordsOfOthers(t *testing.T) {
	for _, v := range vectors {
		for _, last := range []string{"\n", "\x00", "0", "\xff"} {
			code, minute, ok := otp.NewVerifier([]byte(v.key), 0).Verify([]byte(v.digits+last), v.addr(), v.at(0))
			if !ok || minute != v.minute || hex.EncodeToString(code[:]) != v.digits {
				t.Errorf("%+v with %q: %x, %d, %t", v, last, code, minute, ok)
			}
		}
	}
}

func TestAPasswordIsGoodInItsMinuteAndTheSkewAroundIt(t *testing.T) {
	v := vectors[0]
	for _, test := range []struct{ skew, allowed time.Duration }{
		{0, 0},
		{time.Nanosecond, time.Nanosecond},
		{30 * time.Second, 30 * time.Second},
		{time.Minute, time.Minute},
		{90*time.Second + 1, 90*time.Second + 1},
		{otp.MaxSkew, otp.MaxSkew},
		{otp.MaxSkew + 1, otp.MaxSkew}, // cut
		{-1, 0},                        // cut
	} {
		verifier := otp.NewVerifier([]byte(v.key), test.skew)
		for _, when := range []struct {
			offset time.Duration
			good   bool
		}{
			{-test.allowed - 1, false},
			{-test.allowed, true},
			{30 * time.Second, true},
			{time.Minute + test.allowed - 1, true},
			{time.Minute + test.allowed, false},
		} {
			code, minute, ok := verifier.Verify([]byte(v.digits+"\n"), v.addr(), v.at(when.offset))
			if ok != when.good {
				t.Errorf("skew %s, %s after its minute began: %t", test.skew, when.offset, ok)
			}
			if ok && minute != v.minute || !ok && (minute != 0 || code != otp.Code{}) {
				t.Errorf("skew %s, %s after its minute began: minute %d, code %x", test.skew, when.offset, minute, code)
			}
		}
	}
}

// A clock that is not set may be before 1970.
func TestPasswordsAreGoodBefore1970(t *testing.T) {
	key, source := []byte("foo"), netip.MustParseAddr("192.0.2.1")
	for second := -130; second <= 130; second += 5 {
		now := time.Unix(int64(second), 0)
		datagram := otp.Datagram(key, source, now)
		_, minute, ok := otp.NewVerifier(key, 0).Verify(datagram, source, now)
		begin := time.Unix(minute*60, 0)
		if !ok || now.Before(begin) || !now.Before(begin.Add(time.Minute)) {
			t.Errorf("at %d: %t, of minute %d", second, ok, minute)
		}
	}
}

func TestVerifyRefusesWhatIsForOthers(t *testing.T) {
	v := vectors[0]
	datagram := []byte(v.digits + "\n")
	for _, source := range []netip.Addr{
		{}, netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("1.2.0.192"), netip.MustParseAddr("::192.0.2.1"), netip.MustParseAddr("2001:db8::1"),
	} {
		if code, _, ok := otp.NewVerifier([]byte(v.key), otp.MaxSkew).Verify(datagram, source, v.at(0)); ok || code != (otp.Code{}) {
			t.Errorf("from %v: %x, %t", source, code, ok)
		}
	}
	for _, key := range []string{"", "fo", "fop", "Foo", "foo\n"} {
		if code, _, ok := otp.NewVerifier([]byte(key), otp.MaxSkew).Verify(datagram, v.addr(), v.at(0)); ok || code != (otp.Code{}) {
			t.Errorf("by %q: %x, %t", key, code, ok)
		}
	}
}

func TestEachDigitCounts(t *testing.T) {
	v := vectors[0]
	verifier := otp.NewVerifier([]byte(v.key), 0)
	for i := range len(v.digits) {
		for _, c := range []byte("0123456789abcdef") {
			datagram := []byte(v.digits + "\n")
			right := datagram[i] == c
			datagram[i] = c
			if _, _, ok := verifier.Verify(datagram, v.addr(), v.at(0)); ok != right {
				t.Errorf("with %c for the digit %d: %t", c, i, ok)
			}
		}
	}
}

// garbage are datagrams that do not have the form of a password.
func garbage() map[string][]byte {
	digits := vectors[0].digits
	all := map[string][]byte{
		"nothing":            nil,
		"no 65th byte":       []byte(digits),
		"a byte more":        []byte(digits + "\n\n"),
		"capitals":           []byte(strings.ToUpper(digits) + "\n"),
		"a NUL as of knocks": {0},
		"zeros":              make([]byte, otp.Size),
		"blanks before":      []byte(" " + digits),
		"65,507 digits":      bytes.Repeat([]byte("0"), 65507),
	}
	for _, c := range []byte("/:@G`gAFx \x00\x80\xb0\xe1\xff") { // neighbours of the digits, and others
		for _, at := range []int{0, 1, 62, 63} {
			b := []byte(digits + "\n")
			b[at] = c
			all[fmt.Sprintf("%q for the digit %d", c, at)] = b
		}
	}
	return all
}

func TestGarbageIsRefused(t *testing.T) {
	v := vectors[0]
	verifier := otp.NewVerifier([]byte(v.key), otp.MaxSkew)
	for name, b := range garbage() {
		before := slices.Clone(b)
		if code, minute, ok := verifier.Verify(b, v.addr(), v.at(0)); ok || minute != 0 || code != (otp.Code{}) {
			t.Errorf("%s: %x, %d, %t", name, code, minute, ok)
		}
		if !bytes.Equal(b, before) {
			t.Errorf("%s: has been changed", name)
		}
	}
}

func TestVerifyDoesNotAllocate(t *testing.T) {
	for _, v := range vectors {
		verifier := otp.NewVerifier([]byte(v.key), otp.MaxSkew)
		source, now := v.addr(), v.at(0)
		for _, datagram := range [][]byte{[]byte(v.digits + "\n"), []byte(strings.Repeat("0", otp.Size)), {0}} {
			if n := testing.AllocsPerRun(100, func() { verifier.Verify(datagram, source, now) }); n != 0 {
				t.Errorf("%.8q from %s: %v allocations", datagram, source, n)
			}
		}
	}
}

// FuzzVerify compares Verify with a slow and simple way, which makes the passwords of all
// minutes that are valid now.
func FuzzVerify(f *testing.F) {
	for _, v := range vectors {
		source := v.addr().AsSlice()
		for _, offset := range []int64{0, -1, 60, 600} {
			f.Add([]byte(v.digits+"\n"), []byte(v.key), source, v.minute*60+offset, int64(0), int64(600))
		}
	}
	for _, b := range garbage() {
		f.Add(b, []byte("foo"), []byte{192, 0, 2, 1}, int64(1740000000), int64(999_999_999), int64(1))
	}
	f.Fuzz(func(t *testing.T, datagram, key, address []byte, seconds, nanoseconds, skewSeconds int64) {
		source, _ := netip.AddrFromSlice(address)
		// Times that leave room to add to a time.Time, and some close to the next minute.
		now := time.Unix(seconds%(1<<40), nanoseconds%1e9)
		skew := time.Duration(skewSeconds%601) * time.Second
		verifier := otp.NewVerifier(key, skew)

		check := func(datagram []byte) {
			code, minute, ok := verifier.Verify(datagram, source, now)
			var good []int64
			if source.IsValid() && len(datagram) == otp.Size {
				for m := now.Unix()/60 - 12; m <= now.Unix()/60+12; m++ {
					begin := time.Unix(m*60, 0)
					if now.Before(begin.Add(-max(skew, 0))) || !now.Before(begin.Add(time.Minute+max(skew, 0))) {
						continue
					}
					if bytes.Equal(otp.Datagram(key, source, begin)[:64], datagram[:64]) {
						good = append(good, m)
					}
				}
			}
			if ok != (len(good) > 0) || ok && !slices.Contains(good, minute) {
				t.Errorf("%q from %v at %s: %d, %t, want one of %v", datagram, source, now, minute, ok, good)
			}
			want := ""
			if ok {
				want = string(datagram[:64])
			}
			if ok && hex.EncodeToString(code[:]) != want || !ok && code != (otp.Code{}) {
				t.Errorf("%q has the code %x", datagram, code)
			}
		}
		check(datagram)
		if source.IsValid() {
			check(otp.Datagram(key, source, now))
			check(otp.Datagram(key, source, now.Add(skew)))
			check(otp.Datagram(key, source, now.Add(-skew)))
			check(otp.Datagram(key, source, now.Add(skew+time.Minute)))
			check(otp.Datagram(key, source, now.Add(-skew-time.Minute)))
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	v := vectors[0]
	good := []byte(v.digits + "\n")
	wrong := []byte(strings.Repeat("0", otp.Size))
	capitals := []byte(strings.ToUpper(v.digits) + "\n")
	for _, bench := range []struct {
		name     string
		datagram []byte
		skew     time.Duration
		ok       bool
	}{
		{"good", good, 0, true},
		{"good within a minute", good, time.Minute, true},
		{"good within ten minutes", good, otp.MaxSkew, true},
		{"wrong within ten minutes", wrong, otp.MaxSkew, false},
		{"garbage of another length", []byte{0}, otp.MaxSkew, false},
		{"garbage of that length", capitals, otp.MaxSkew, false},
	} {
		b.Run(bench.name, func(b *testing.B) {
			verifier := otp.NewVerifier([]byte(v.key), bench.skew)
			source, now := v.addr(), v.at(0)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, ok := verifier.Verify(bench.datagram, source, now); ok != bench.ok {
					b.Fatal(ok)
				}
			}
		})
	}
}
