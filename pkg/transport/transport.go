// Package transport owns calls between processes: the streams of frames from distributors to
// ingesters, the clients for ingester queries, both also in an in-process form without sockets and
// encoding, and the HTTP and gRPC listeners of a process. It also owns how errors and tenants cross
// gRPC, and the rule on which addresses a process may listen before anything authenticates its
// callers.
package transport

import (
	"sync/atomic"

	"google.golang.org/grpc/mem"
)

// maxMessageBytes bounds one gRPC message; Mimir's value, which holds every record of package
// frame.
const maxMessageBytes = 100 << 20

// Incarnations gives out the names of streams' sets of bindings (frame.Replica). All replicas of
// a process share one, so that no name is used twice.
type Incarnations struct{ last atomic.Uint32 }

// Next returns a name that was not given out before and is not 0.
func (i *Incarnations) Next() uint32 {
	for {
		if n := i.last.Add(1); n != 0 {
			return n
		}
	}
}

// newBufferPool has a tier for every power of two from 256 B to 128 MiB, because gRPC's own tiers
// jump from 32 KiB to 1 MiB and waste most of what they hand out in between.
func newBufferPool() mem.BufferPool {
	pool, err := mem.NewBinaryTieredBufferPool(8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27)
	if err != nil {
		panic("BUG: buffer pool tiers: " + err.Error())
	}
	return pool
}
