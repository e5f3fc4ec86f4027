package fwknop

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"hash"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/knockwall/knockwall/internal/packet"
)

// ErrNotAuthentic is the error for a datagram without a valid HMAC. It may come from anybody.
// All other errors are about datagrams of somebody who has the HMAC key.
var ErrNotAuthentic = errors.New("the datagram has no valid HMAC")

// errNotReadable is the error for an authentic datagram that no mode decrypts.
var errNotReadable = errors.New("the HMAC is right, but the rest cannot be decrypted with the key. Compare KEY_BASE64 of both sides")

// ID identifies the content of a datagram. Different texts of the same content have the same
// ID, and different contents have different IDs.
type ID [16]byte

// Reader reads the datagrams of clients with the same keys. It is not safe for concurrent
// use.
type Reader struct {
	key  []byte
	kind HMAC
	mac  hash.Hash

	// Buffers that Read reuses, so that it allocates nothing for garbage.
	sum  []byte
	text []byte
}

// NewReader returns a reader for keys.
func NewReader(k Keys) *Reader {
	r := &Reader{
		key: bytes.Clone(k.Cipher), kind: k.Kind, mac: hmac.New(hashes[k.Kind].make, k.HMAC),
		text: make([]byte, k.Kind.textSize()),
	}
	r.isAuthentic(make([]byte, MinSize)) // crypto/hmac allocates on first use
	return r
}

// isAuthentic reports whether a datagram has a valid HMAC. It compares texts: so the spare
// bits of the last character count.
func (r *Reader) isAuthentic(datagram []byte) bool {
	if len(datagram) < MinSize || len(datagram) > MaxSize || strings.IndexByte(FirstBytes, datagram[0]) < 0 {
		return false
	}
	encrypted, said := split(datagram, r.kind)
	r.mac.Reset()
	r.mac.Write(unsentBytes)
	r.mac.Write(encrypted)
	r.sum = r.mac.Sum(r.sum[:0])
	encoding.Encode(r.text, r.sum)
	return subtle.ConstantTimeCompare(r.text, said) == 1
}

var unsentBytes = []byte(unsent)

// split returns the encrypted part and the HMAC, both in base64.
func split(datagram []byte, kind HMAC) (encrypted, mac []byte) {
	at := len(datagram) - kind.textSize()
	return datagram[:at], datagram[at:]
}

// Read returns the content of a datagram. It decrypts only what has a valid HMAC, and
// allocates nothing else. Other errors than [ErrNotAuthentic] say what is wrong, without
// text of the datagram. The caller has to check Time, and whether the ID was used before.
func (r *Reader) Read(datagram []byte) (Request, ID, error) {
	if !r.isAuthentic(datagram) {
		return Request{}, ID{}, ErrNotAuthentic
	}
	encrypted, _ := split(datagram, r.kind)
	sealed, err := decode(append([]byte(unsent), encrypted...))
	if err != nil {
		return Request{}, ID{}, errNotReadable
	}
	salt, sealed := sealed[len(marker):len(marker)+saltSize], sealed[len(marker)+saltSize:]
	if len(sealed)%blockSize != 0 {
		return Request{}, ID{}, errNotReadable
	}
	block, iv := newCipher(r.key, salt)
	for m := range modes {
		plain, ok := m.decrypt(block, iv, sealed)
		if !ok {
			continue
		}
		if content, ok := checkDigest(plain); ok {
			request, err := parse(content)
			sum := sha256.Sum256([]byte(content))
			return request, ID(sum[:len(ID{})]), err
		}
	}
	return Request{}, ID{}, errNotReadable
}

// checkDigest returns the text before the digest. It returns false if the digest is wrong,
// as after decryption by the wrong key or mode. The length of a digest tells its kind.
func checkDigest(plain []byte) (content string, ok bool) {
	at := bytes.LastIndexByte(plain, ':')
	if at < 0 {
		return "", false
	}
	content, digest := string(plain[:at]), string(plain[at+1:])
	for _, h := range hashes {
		if encoding.EncodedLen(h.size) != len(digest) {
			continue
		}
		sum := h.make()
		sum.Write(plain[:at])
		if encoding.EncodeToString(sum.Sum(nil)) == digest {
			return content, true
		}
	}
	return "", false
}

// errForm is the error for content that no client sends.
var errForm = errors.New("the datagram does not have the fields of fwknop's format 3.0.0")

// types are the message types, by number.
var types = [...]struct {
	kind    Kind
	timeout bool // the last field is a timeout
}{
	{Command, false}, {Access, false}, {NAT, false}, {Access, true}, {NAT, true}, {LocalNAT, false}, {LocalNAT, true},
}

// parse reads random:user:time:version:type:message[:nat][:server_auth][:timeout].
func parse(content string) (r Request, err error) {
	fields := strings.Split(content, ":")
	const fixed = 6
	if len(fields) < fixed || len(fields[0]) != randomDigits || !isNumber(fields[0]) || !isVersion(fields[3]) {
		return Request{}, errForm
	}
	seconds, err := parseNumber(fields[2], 1<<40)
	if err != nil {
		return Request{}, err
	}
	r.Time = time.Unix(seconds, 0)
	if r.User, err = decodeText(fields[1]); err != nil {
		return Request{}, err
	}
	number, err := parseNumber(fields[4], int64(len(types)-1))
	if err != nil {
		return Request{}, err
	}
	r.Kind = types[number].kind
	message, err := decodeText(fields[5])
	if err != nil {
		return Request{}, err
	}
	rest := fields[fixed:]
	if types[number].timeout {
		if len(rest) == 0 {
			return Request{}, errForm
		}
		seconds, err := parseNumber(rest[len(rest)-1], 1<<31)
		if err != nil {
			return Request{}, err
		}
		r.Timeout = time.Duration(seconds) * time.Second
		rest = rest[:len(rest)-1]
	}
	if r.Kind == NAT || r.Kind == LocalNAT {
		if len(rest) == 0 {
			return Request{}, errForm
		}
		if r.To, err = parseTarget(rest[0]); err != nil {
			return Request{}, err
		}
		rest = rest[1:]
	}
	if len(rest) > 1 { // one field may be server_auth, which fwknopd does not use
		return Request{}, errForm
	}
	r.Source, r.Ports, err = parseMessage(message, r.Kind)
	return r, err
}

// parseMessage reads an address and ports, such as 192.0.2.7,tcp/22,udp/53, or an address
// and a command.
func parseMessage(message string, kind Kind) (netip.Addr, []packet.Port, error) {
	address, list, _ := strings.Cut(message, ",")
	source, err := netip.ParseAddr(address)
	if err != nil || source.Zone() != "" || list == "" {
		return netip.Addr{}, nil, errForm
	}
	source = source.Unmap()
	if source.IsUnspecified() {
		source = netip.Addr{}
	}
	if kind == Command {
		return source, nil, nil
	}
	var ports []packet.Port
	for item := range strings.SplitSeq(list, ",") {
		protocol, number, _ := strings.Cut(item, "/")
		port, ok := packet.ParsePortNumber(number)
		if !ok {
			return netip.Addr{}, nil, errForm
		}
		switch protocol {
		case "tcp":
			ports = append(ports, packet.Port{Number: port, Protocol: packet.TCP})
		case "udp":
			ports = append(ports, packet.Port{Number: port, Protocol: packet.UDP})
		default:
			return netip.Addr{}, nil, errForm
		}
	}
	return source, ports, nil
}

// parseTarget reads an address or name, and a port, such as 10.1.2.3,22.
func parseTarget(field string) (NATTarget, error) {
	text, err := decodeText(field)
	if err != nil {
		return NATTarget{}, err
	}
	host, number, _ := strings.Cut(text, ",")
	port, ok := packet.ParsePortNumber(number)
	if !ok || host == "" {
		return NATTarget{}, errForm
	}
	return NATTarget{host, port}, nil
}

// decodeText reads a field in base64. It accepts printable ASCII only.
func decodeText(field string) (string, error) {
	b, err := decode([]byte(field))
	if err != nil || bytes.ContainsFunc(b, func(c rune) bool { return c < ' ' || c > '~' }) {
		return "", errForm
	}
	return string(b), nil
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func isVersion(s string) bool { return s != "" && strings.Trim(s, "0123456789.") == "" }

// parseNumber reads a number from 0 to most.
func parseNumber(s string, most int64) (int64, error) {
	if !isNumber(s) {
		return 0, errForm
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > most {
		return 0, errForm
	}
	return n, nil
}
