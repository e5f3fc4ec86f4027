package fwknop

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/md5"
	"crypto/subtle"
	"encoding/binary"
)

const (
	blockSize = aes.BlockSize
	keySize   = 32 // AES-256
)

// newCipher derives the AES key and the initial vector from a key and a salt.
func newCipher(key, salt []byte) (block cipher.Block, iv []byte) {
	var derived, last []byte
	for len(derived) < keySize+blockSize {
		sum := md5.Sum(bytes.Join([][]byte{last, key, salt}, nil))
		last = sum[:]
		derived = append(derived, last...)
	}
	block, err := aes.NewCipher(derived[:keySize])
	if err != nil {
		panic(err) // the size of the key is right
	}
	return block, derived[keySize : keySize+blockSize]
}

// mode is a mode of AES. Datagrams do not name theirs.
type mode uint8

// The modes of clients (NIST SP 800-38A), the usual one first. CFB is the one with 128 bits.
const (
	cbc mode = iota
	ctr
	ofb
	cfb
	ecb
	modes
)

// decrypt decrypts whole blocks, and removes the padding of PKCS #7, which clients add in
// every mode. It returns false if there is no such padding.
func (m mode) decrypt(block cipher.Block, iv, text []byte) (plain []byte, ok bool) {
	plain = make([]byte, len(text))
	last := bytes.Clone(iv)
	for at := 0; at < len(text); at += blockSize {
		in, out := text[at:at+blockSize], plain[at:at+blockSize]
		switch m {
		case cbc:
			block.Decrypt(out, in)
			subtle.XORBytes(out, out, last)
			copy(last, in)
		case ctr:
			block.Encrypt(out, last)
			subtle.XORBytes(out, out, in)
			increment(last)
		case ofb:
			block.Encrypt(last, last)
			subtle.XORBytes(out, last, in)
		case cfb:
			block.Encrypt(out, last)
			subtle.XORBytes(out, out, in)
			copy(last, in)
		case ecb:
			block.Decrypt(out, in)
		}
	}
	return unpad(plain)
}

// increment adds one to a big-endian number of one block.
func increment(counter []byte) {
	low := binary.BigEndian.Uint64(counter[8:]) + 1
	binary.BigEndian.PutUint64(counter[8:], low)
	if low == 0 {
		binary.BigEndian.PutUint64(counter, binary.BigEndian.Uint64(counter)+1)
	}
}

func unpad(b []byte) ([]byte, bool) {
	if len(b) == 0 {
		return nil, false
	}
	n := int(b[len(b)-1])
	if n == 0 || n > blockSize || n > len(b) {
		return nil, false
	}
	text, padding := b[:len(b)-n], b[len(b)-n:]
	return text, bytes.Count(padding, padding[:1]) == n
}

func pad(b []byte) []byte {
	n := blockSize - len(b)%blockSize
	return append(b, bytes.Repeat([]byte{byte(n)}, n)...)
}
