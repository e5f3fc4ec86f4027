package hosts

import (
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/knockwall/knockwall/internal/client"
	wire "github.com/knockwall/knockwall/internal/fwknop"
	"github.com/knockwall/knockwall/internal/method"
	"github.com/knockwall/knockwall/internal/method/fwknop"
	"github.com/knockwall/knockwall/internal/packet"
)

// fwknopFields are what the block of a host with fwknop can have: fwknop's KEY_BASE64,
// HMAC_KEY_BASE64, HMAC_DIGEST_TYPE, SPOOF_USER, ACCESS, SPA_SERVER_PORT and FW_TIMEOUT.
type fwknopFields struct {
	Key     hcl.Expression `hcl:"key"`
	HMACKey hcl.Expression `hcl:"hmac_key"`
	HMAC    hcl.Expression `hcl:"hmac,optional"`
	User    hcl.Expression `hcl:"user,optional"`
	Access  hcl.Expression `hcl:"access"`
	Port    hcl.Expression `hcl:"port,optional"`
	Timeout hcl.Expression `hcl:"timeout,optional"`
}

// longestTimeout is the longest window that a client asks for.
const longestTimeout = 24 * time.Hour

func readFwknop(r method.Reader, b *hcl.Block) *client.Fwknop {
	var at fwknopFields
	r.Decode(fwknop.RefuseGPG(r, b), &at)
	f := &client.Fwknop{Port: wire.Port}
	cipher, mac, kind := fwknop.ReadKeys(r, at.Key, at.HMACKey, at.HMAC, b.DefRange)
	f.Keys = wire.Keys{Cipher: cipher.Key(), HMAC: mac.Key(), Kind: kind}
	r.Text(at.User, &f.User)
	r.Duration(at.Timeout, &f.Timeout, time.Second, longestTimeout)
	if !r.Lacks(at.Access, b.DefRange, "No ports", `fwknop asks for ports: access = [22], or ["22/tcp", "53/udp"].`) {
		r.List(at.Access, func(e hcl.Expression, text string) {
			p, err := packet.ParsePort(text)
			if err != nil {
				r.Fail(e, "Not a port", `Write a port, from 1 to 65535, such as 22 or "53/udp".`)
			}
			f.Ports = append(f.Ports, p)
		})
	}
	if !r.IsAbsent(at.Port) {
		f.Port = readUDPPort(r, at.Port, f.Port)
	}
	return f
}
