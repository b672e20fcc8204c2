package remotewrite

import "hash/maphash"

// index finds the references of symbols by their text. It is emptied by counting up a generation,
// because a small request must not pay for clearing what a large one left.
type index struct {
	seed  maphash.Seed
	slots []slot // a power of two of them, at most half in use
	gen   uint32 // slots of other generations are free
	texts []string
}

type slot struct{ gen, hash, ref uint32 }

// firstSlots is enough for what one process sends by itself.
const firstSlots = 1 << 10

// begin empties x but for the empty string, which has the reference 0.
func (x *index) begin() {
	if x.slots == nil {
		x.seed, x.slots = maphash.MakeSeed(), make([]slot, firstSlots)
	}
	if x.gen++; x.gen == 0 {
		clear(x.slots)
		x.gen = 1
	}
	x.texts = append(x.texts, "")
}

// end forgets the texts.
func (x *index) end() {
	if len(x.slots) > 2*keepItems {
		x.slots = nil
	}
	clear(x.texts)
	x.texts = trim(x.texts)
}

// find returns the reference of s, or where put may put it.
func (x *index) find(s string) (ref uint32, hash uint32, found bool) {
	hash = uint32(maphash.String(x.seed, s))
	mask := uint32(len(x.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		at := &x.slots[i]
		if at.gen != x.gen {
			return 0, hash, false
		}
		if at.hash == hash && x.texts[at.ref] == s {
			return at.ref, hash, true
		}
	}
}

// put adds s, which find did not find, with the hash that find told.
func (x *index) put(s string, hash uint32) uint32 {
	ref := uint32(len(x.texts))
	x.texts = append(x.texts, s)
	if 2*len(x.texts) > len(x.slots) {
		old := x.slots
		x.slots = make([]slot, 2*len(old))
		for _, s := range old {
			if s.gen == x.gen {
				x.place(s)
			}
		}
	}
	x.place(slot{x.gen, hash, ref})
	return ref
}

func (x *index) place(s slot) {
	mask := uint32(len(x.slots) - 1)
	i := s.hash & mask
	for x.slots[i].gen == x.gen {
		i = (i + 1) & mask
	}
	x.slots[i] = s
}
