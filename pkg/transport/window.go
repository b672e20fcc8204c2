package transport

import (
	"time"

	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// encoded is an encoded frame; encoders and their buffers are pooled together.
type encoded struct {
	encoder frame.Encoder
	record  []byte
}

// pending is a frame that waits for its result.
type pending struct {
	done     func(frame.Result) // nil: has its result
	frame    *encoded           // nil: handed to the sender
	deadline time.Time
	cost     int
}

// window holds the frames of one replica that wait for results, by sequence number. Numbers are
// dense and deadlines grow with them, so a ring with three marks is queue, index and timer list
// at once: base <= unsent <= next. It is not safe for concurrent use.
type window struct {
	ring               []pending // length is a power of two
	base, unsent, next uint64
	bytes              int // the cost of frames without a result
}

// frameOverheadBytes is charged for each frame beside its encoded bytes.
const frameOverheadBytes = 256

func (w *window) at(seq uint64) *pending { return &w.ring[seq&uint64(len(w.ring)-1)] }

func (w *window) empty() bool { return w.base == w.next }

// add queues a frame and returns its sequence number.
func (w *window) add(p pending) uint64 {
	if w.next-w.base == uint64(len(w.ring)) {
		old := *w
		w.ring = make([]pending, max(64, 2*len(w.ring)))
		for seq := w.base; seq < w.next; seq++ {
			*w.at(seq) = *old.at(seq)
		}
	}
	seq := w.next
	*w.at(seq) = p
	w.next++
	w.bytes += p.cost
	return seq
}

// queued is a frame on its way to the sender.
type queued struct {
	seq   uint64
	frame *encoded
}

// take appends queued frames to dst until their records have limit bytes; at least one if any.
func (w *window) take(dst []queued, limit int) []queued {
	size := 0
	for ; w.unsent < w.next; w.unsent++ {
		p := w.at(w.unsent)
		if p.frame == nil {
			continue
		}
		if size > 0 && size+len(p.frame.record) > limit {
			break
		}
		size += len(p.frame.record)
		dst = append(dst, queued{w.unsent, p.frame})
		p.frame = nil
	}
	return dst
}

// finish ends the wait of seq. It returns the callback, nil if seq does not wait (any more), and
// the frame if the sender did not take it.
func (w *window) finish(seq uint64) (func(frame.Result), *encoded) {
	if seq < w.base || seq >= w.next {
		return nil, nil
	}
	p := w.at(seq)
	done, enc := p.done, p.frame
	if done == nil {
		return nil, nil
	}
	w.bytes -= p.cost
	*p = pending{}
	for w.base < w.next && w.at(w.base).done == nil {
		w.base++
	}
	w.unsent = max(w.unsent, w.base)
	return done, enc
}
