package remotewrite

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// Hash names the encoded labels of a series within one process. Two series of one tenant with
// the same Hash are taken for the same series, so it has 128 bits and depends on secret keys:
// nobody outside can search for a collision.
type Hash struct{ Hi, Lo uint64 }

// Keys are the secrets of one process behind every Hash.
type Keys struct {
	hi, lo         maphash.Seed
	start          Hash
	mulHi, mulLo   uint64 // odd, so that no bit of the state is lost
	name, value    Hash
	metaHi, metaLo uint64
}

// NewKeys draws fresh secrets.
func NewKeys() *Keys {
	k := &Keys{hi: maphash.MakeSeed(), lo: maphash.MakeSeed()}
	n := uint64(0)
	draw := func() uint64 {
		n++
		return maphash.Comparable(k.hi, n)
	}
	k.start = Hash{draw(), draw()}
	k.mulHi, k.mulLo = draw()|1, draw()|1
	k.name, k.value = Hash{draw(), draw()}, Hash{draw(), draw()}
	k.metaHi, k.metaLo = draw(), draw()
	return k
}

// bytes hashes b.
func (k *Keys) bytes(b []byte) Hash {
	return Hash{maphash.Bytes(k.hi, b), maphash.Bytes(k.lo, b)}
}

// pair joins the hashes of a label's name and value. It does not depend on the labels before, so
// the processor computes several at once.
func (k *Keys) pair(name, value Hash) Hash {
	aHi, aLo := bits.Mul64(name.Hi^k.name.Hi, value.Hi^k.value.Hi)
	bHi, bLo := bits.Mul64(name.Lo^k.name.Lo, value.Lo^k.value.Lo)
	return Hash{aHi ^ aLo, bHi ^ bLo}
}

// mix appends s to the hash h of what came before it; the order counts.
// Each half takes part in both halves of the result, and the full products are used, so a
// difference in any input bit spreads over all 128.
func (k *Keys) mix(h, s Hash) Hash {
	aHi, aLo := bits.Mul64(h.Hi^s.Hi, k.mulHi)
	bHi, bLo := bits.Mul64(h.Lo^s.Lo, k.mulLo)
	return Hash{aLo ^ bHi, bLo ^ aHi}
}

// metadata hashes what a series says about its family.
func (k *Keys) metadata(kind uint8, help, unit Hash) uint64 {
	h := k.mix(k.mix(Hash{k.metaHi ^ uint64(kind), k.metaLo}, help), unit)
	return h.Hi ^ h.Lo
}

// Text hashes b together with seed, for sets that live as long as one request or one process.
func (k *Keys) Text(seed uint64, b []byte) uint64 {
	var s [8]byte
	binary.LittleEndian.PutUint64(s[:], seed)
	var h maphash.Hash
	h.SetSeed(k.hi)
	_, _ = h.Write(s[:])
	_, _ = h.Write(b)
	return h.Sum64()
}
