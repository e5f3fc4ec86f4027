package fwknop_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/knockwall/knockwall/internal/fwknop"
)

// FuzzRead reads garbage, and content that was sealed with the right keys.
func FuzzRead(f *testing.F) {
	for _, d := range recordings(f) {
		f.Add(d.datagram, d.content, uint8(d.kind))
	}
	for _, content := range malformed {
		f.Add([]byte(content), content, uint8(fwknop.SHA256))
	}
	f.Fuzz(func(t *testing.T, datagram []byte, content string, number uint8) {
		kind := fwknop.HMAC(number) % (fwknop.SHA3x512 + 1)
		reader := fwknop.NewReader(keys(t, kind))
		check := func(datagram []byte) error {
			r, id, err := reader.Read(datagram)
			if err == nil {
				isPlausible(t, r)
			}
			if errors.Is(err, fwknop.ErrNotAuthentic) && id != (fwknop.ID{}) {
				t.Errorf("%x of a datagram without HMAC", id)
			}
			return err
		}
		_ = check(datagram)
		if sealed := fwknop.Seal(keys(t, kind), content); len(sealed) >= fwknop.MinSize && len(sealed) <= fwknop.MaxSize {
			if err := check(sealed); errors.Is(err, fwknop.ErrNotAuthentic) {
				t.Errorf("%q is not authentic", content)
			}
		}
	})
}

func isPlausible(t *testing.T, r fwknop.Request) {
	t.Helper()
	isNAT := r.Kind == fwknop.NAT || r.Kind == fwknop.LocalNAT
	switch {
	case r.Timeout < 0 || r.Timeout%time.Second != 0,
		strings.ContainsFunc(r.User+r.To.Host, func(c rune) bool { return c < ' ' || c > '~' }),
		(r.Kind == fwknop.Command) != (len(r.Ports) == 0),
		isNAT != (r.To.Port != 0) || isNAT != (r.To.Host != ""),
		r.Source.IsValid() && r.Source.IsUnspecified():
		t.Errorf("%+v", r)
	}
}

// malformed is content that no client sends.
var malformed = []string{
	"",
	":",
	":::::",
	"123456789012345:YQ:1:3.0.0:1:MTkyLjAuMi43LHRjcC8yMg",                   // 15 digits
	"123456789012345x:YQ:1:3.0.0:1:MTkyLjAuMi43LHRjcC8yMg",                  // no digits
	"1234567890123456:Y:1:3.0.0:1:MTkyLjAuMi43LHRjcC8yMg",                   // user: no base64
	"1234567890123456:YR:1:3.0.0:1:MTkyLjAuMi43LHRjcC8yMg",                  // user: spare bits
	"1234567890123456:Cg:1:3.0.0:1:MTkyLjAuMi43LHRjcC8yMg",                  // user: newline
	"1234567890123456:Y\nQ:1:3.0.0:1:MTkyLjAuMi43LHRjcC8yMg",                // user: newline in the base64
	"1234567890123456:YQ:-1:3.0.0:1:MTkyLjAuMi43LHRjcC8yMg",                 // time: negative
	"1234567890123456:YQ:+1:3.0.0:1:MTkyLjAuMi43LHRjcC8yMg",                 // time: sign
	"1234567890123456:YQ:99999999999999999999:3.0.0:1:MTkyLjAuMi43LHRjcC8y", // time: too far
	"1234567890123456:YQ::3.0.0:1:MTkyLjAuMi43LHRjcC8yMg",                   // time: none
	"1234567890123456:YQ:1:x:1:MTkyLjAuMi43LHRjcC8yMg",                      // version
	"1234567890123456:YQ:1:3.0.0:7:MTkyLjAuMi43LHRjcC8yMg",                  // type
	"1234567890123456:YQ:1:3.0.0:3:MTkyLjAuMi43LHRjcC8yMg",                  // no timeout
	"1234567890123456:YQ:1:3.0.0:3:MTkyLjAuMi43LHRjcC8yMg:x",                // timeout: no number
	"1234567890123456:YQ:1:3.0.0:3:MTkyLjAuMi43LHRjcC8yMg:9999999999",       // timeout: too long
	"1234567890123456:YQ:1:3.0.0:2:MTkyLjAuMi43LHRjcC8yMg",                  // no NAT
	"1234567890123456:YQ:1:3.0.0:2:MTkyLjAuMi43LHRjcC8yMg:MTAuMS4yLjM",      // NAT: no port
	"1234567890123456:YQ:1:3.0.0:2:MTkyLjAuMi43LHRjcC8yMg:LDIy",             // NAT: no host
	"1234567890123456:YQ:1:3.0.0:1:MTkyLjAuMi43LHRjcC8yMg:YQ:YQ",            // too many fields
	"1234567890123456:YQ:1:3.0.0:1:MTkyLjAuMi43",                            // no port
	"1234567890123456:YQ:1:3.0.0:1:MTkyLjAuMi43LA",                          // empty port
	"1234567890123456:YQ:1:3.0.0:1:MTkyLjAuMi43LHRjcC8w",                    // port 0
	"1234567890123456:YQ:1:3.0.0:1:MTkyLjAuMi43LHRjcC82NTUzNg",              // port 65536
	"1234567890123456:YQ:1:3.0.0:1:MTkyLjAuMi43LGljbXAvOA",                  // icmp
	"1234567890123456:YQ:1:3.0.0:1:aG9zdCx0Y3AvMjI",                         // a name for the address
}

func TestMalformedContentIsTold(t *testing.T) {
	const good = "1234567890123456:YQ:1:3.0.0:1:MTkyLjAuMi43LHRjcC8yMg"
	reader := fwknop.NewReader(keys(t, fwknop.SHA512))
	isRead := map[string]bool{good: true, good + ":YQ": true} // with a field server_auth
	for _, content := range append([]string{good, good + ":YQ"}, malformed...) {
		datagram := fwknop.Seal(keys(t, fwknop.SHA512), content)
		if len(datagram) < fwknop.MinSize {
			continue
		}
		if _, _, err := reader.Read(datagram); (err == nil) != isRead[content] || errors.Is(err, fwknop.ErrNotAuthentic) {
			t.Errorf("%q: %v", content, err)
		}
	}
}

// Nobody who has the HMAC key makes another text of the same content that is read as well.
func TestAnEndOfALineInBase64IsNotRead(t *testing.T) {
	k := keys(t, fwknop.SHA512)
	good := fwknop.Seal(k, "1234567890123456:YQ:1:3.0.0:1:MTkyLjAuMi43LHRjcC8yMg")
	for _, end := range []string{"\n", "\r", "\r\n"} {
		datagram := fwknop.WithHMAC(k, string(good[:20])+end+string(good[20:len(good)-86]))
		if _, _, err := fwknop.NewReader(k).Read(datagram); err == nil || errors.Is(err, fwknop.ErrNotAuthentic) {
			t.Errorf("%q: %v", end, err)
		}
	}
}

func TestAWrongDigestIsTold(t *testing.T) {
	const content = "1234567890123456:YQ:1:3.0.0:1:MTkyLjAuMi43LHRjcC8yMg"
	for _, text := range []string{content, content + ":", content + ":" + strings.Repeat("A", 22), content + ":" + strings.Repeat("A", 43), content + ":" + strings.Repeat("A", 86)} {
		_, id, err := fwknop.NewReader(keys(t, fwknop.SHA512)).Read(fwknop.SealWithoutDigest(keys(t, fwknop.SHA512), text))
		if err == nil || id != (fwknop.ID{}) || !strings.Contains(err.Error(), "cannot be decrypted") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
