package remotewrite

// chunkBytes is how much is allocated for texts at once.
const chunkBytes = 16 << 10

// Reserve accounts for n bytes that the caller takes for the body. Errors: those of Room.
func (e *Encoder) Reserve(n int) error {
	if e.err == nil {
		e.err = e.room.Reserve(n)
	}
	return e.err
}

// Spare returns empty memory for n bytes of a text that does not lie in what is translated; Keep
// makes it a text, which is good until End.
func (e *Encoder) Spare(n int) []byte {
	if cap(e.chunk)-len(e.chunk) < n {
		size := max(n, chunkBytes)
		_ = e.Reserve(size) // the error stays in the encoder
		e.chunk = make([]byte, 0, size)
	}
	return e.chunk[len(e.chunk):len(e.chunk):cap(e.chunk)]
}

// Keep returns b, which begins where Spare said, as a text.
func (e *Encoder) Keep(b []byte) string {
	if len(b) <= cap(e.chunk)-len(e.chunk) {
		e.chunk = e.chunk[:len(e.chunk)+len(b)]
	}
	return view(b)
}

// Join returns the texts one after another.
func (e *Encoder) Join(parts ...string) string {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b := e.Spare(n)
	for _, p := range parts {
		b = append(b, p...)
	}
	return e.Keep(b)
}
