package nfnetlink

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// packed is the type of a message that contains a packet.
const packed = unix.NFNL_SUBSYS_ULOG << 8

// saying returns a message of a type, padded as by the kernel. Its header states the
// given length, even a wrong one.
func saying(length uint32, kind uint16, body []byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, length)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, make([]byte, headerLength-len(b))...)
	b = append(b, body...)
	return append(b, make([]byte, -len(b)&3)...)
}

func of(kind uint16, body []byte) []byte { return saying(uint32(headerLength+len(body)), kind, body) }

// withPacket returns a message with attributes.
func withPacket(attributes string) []byte {
	return of(packed, append(make([]byte, familyLength), attributes...))
}

// answer returns the kernel's answer, with an error number or 0.
func answer(errno int32) []byte {
	body := binary.NativeEndian.AppendUint32(nil, uint32(-errno))
	return of(unix.NLMSG_ERROR, append(body, make([]byte, headerLength)...)) // and the header of the request
}

func done() []byte { return of(unix.NLMSG_DONE, make([]byte, familyLength)) }

// attribute returns an attribute whose header states the given length.
func attribute(length int, kind uint16, value string) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(length))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&3)...)
}

func TestNextTakesOneMessageOff(t *testing.T) {
	first, second := of(7, []byte("first")), of(8, []byte("2nd."))
	for _, tt := range []struct {
		name     string
		datagram []byte
		kind     uint16
		body     string
		rest     []byte
	}{
		{"one", second, 8, "2nd.", nil},
		{"one of a length that is padded", first, 7, "first", nil},
		{"two", slices.Concat(first, second), 7, "first", second},
		{"one without padding, at the end", first[:headerLength+5], 7, "first", nil},
		{"one with a part of its padding, at the end", first[:headerLength+6], 7, "first", nil},
		{"one without a body", of(9, nil), 9, "", nil},
		{"one, and the next cut short", slices.Concat(first, second[:3]), 7, "first", second[:3]},
	} {
		m, rest, ok := NextMessage(tt.datagram)
		if !ok || m.Kind != tt.kind || string(m.body) != tt.body || !bytes.Equal(rest, tt.rest) {
			t.Errorf("%s: %+v, %q, %t", tt.name, m, rest, ok)
		}
	}
}

func TestWhatIsNoMessageIsNotTakenForOne(t *testing.T) {
	whole := of(7, []byte("body"))
	for name, datagram := range map[string][]byte{
		"nothing":                    nil,
		"a header cut short":         whole[:headerLength-1],
		"a body cut short":           whole[:len(whole)-1],
		"a length of 0":              saying(0, 7, []byte("body")),
		"a length within the header": saying(headerLength-1, 7, []byte("body")),
		"a length beyond the end":    saying(uint32(len(whole)+1), 7, []byte("body")),
		"a length beyond all ends":   saying(1<<32-1, 7, []byte("body")),
		"a length that would wrap":   saying(1<<32-4, 7, []byte("body")),
	} {
		if m, rest, ok := NextMessage(datagram); ok || m.body != nil || rest != nil {
			t.Errorf("%s: %+v, %q", name, m, rest)
		}
	}
}

func TestNextAttributeTakesOneOff(t *testing.T) {
	first, second := attribute(9, 1, "first"), attribute(8, 2, "2nd.")
	for _, tt := range []struct {
		name       string
		attributes []byte
		kind       uint16
		value      string
		rest       []byte
	}{
		{"one", second, 2, "2nd.", nil},
		{"one of a length that is padded", first, 1, "first", nil},
		{"two", slices.Concat(first, second), 1, "first", second},
		{"one without padding, at the end", first[:9], 1, "first", nil},
		{"one with a part of its padding, at the end", first[:11], 1, "first", nil},
		{"one without a value", attribute(4, 3, ""), 3, "", nil},
		{"one with others in it", attribute(8, 4|unix.NLA_F_NESTED, "2nd."), 4, "2nd.", nil},
		{"one in network byte order", attribute(8, 5|unix.NLA_F_NET_BYTEORDER, "2nd."), 5, "2nd.", nil},
		{"one with all flags", attribute(8, 6|unix.NLA_F_NET_BYTEORDER|unix.NLA_F_NESTED, "2nd."), 6, "2nd.", nil},
		{"the highest kind of all", attribute(8, 0xffff, "2nd."), 0x3fff, "2nd.", nil},
		{"one, and the next cut short", slices.Concat(first, second[:3]), 1, "first", second[:3]},
	} {
		a, rest, ok := NextAttribute(tt.attributes)
		if !ok || a.Kind != tt.kind || string(a.Value) != tt.value || !bytes.Equal(rest, tt.rest) {
			t.Errorf("%s: %+v, %q, %t", tt.name, a, rest, ok)
		}
	}
}

func TestWhatIsNoAttributeIsNotTakenForOne(t *testing.T) {
	for name, attributes := range map[string][]byte{
		"nothing":                    nil,
		"a header cut short":         attribute(8, 1, "2nd.")[:3],
		"a value cut short":          attribute(8, 1, "2nd.")[:7],
		"a length of 0":              attribute(0, 1, "2nd."),
		"a length within the header": attribute(3, 1, "2nd."),
		"a length beyond the end":    attribute(9, 1, "2nd."),
		"a length beyond all ends":   attribute(0xffff, 1, "2nd."),
	} {
		if a, rest, ok := NextAttribute(attributes); ok || a.Value != nil || rest != nil {
			t.Errorf("%s: %+v, %q", name, a, rest)
		}
	}
}

func TestAppendAttribute(t *testing.T) {
	b := AppendAttribute([]byte("here"), 7, 0x01020304)
	b = AppendAttribute(b, 8, 0, 0xfffffffe)
	rest, found := bytes.CutPrefix(b, []byte("here"))
	if !found {
		t.Fatalf("what was there is gone: %q", b)
	}
	for _, want := range []Attribute{{7, []byte{1, 2, 3, 4}}, {8, []byte{0, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe}}} {
		var a Attribute
		var ok bool
		a, rest, ok = NextAttribute(rest)
		if !ok || a.Kind != want.Kind || !bytes.Equal(a.Value, want.Value) {
			t.Errorf("%+v, %t, want %+v", a, ok, want)
		}
	}
	if len(rest) != 0 {
		t.Errorf("left: %q", rest)
	}
}
