package transport

import (
	"context"
	"time"

	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// localReplica hands frames to a server in this process by pointer. It implements frame.Replica.
type localReplica struct {
	stream      frame.Stream
	incarnation uint32
	pushTimeout time.Duration
}

// LocalReplica returns a replica whose frames reach srv without sockets or encoding. Push calls
// done before it returns. pushTimeout bounds the context under which a frame is stored.
func LocalReplica(srv frame.Server, ids *Incarnations, pushTimeout time.Duration) frame.Replica {
	return newLocalReplica(srv, ids, pushTimeout)
}

func newLocalReplica(srv frame.Server, ids *Incarnations, pushTimeout time.Duration) *localReplica {
	return &localReplica{stream: srv.OpenStream(), incarnation: ids.Next(), pushTimeout: pushTimeout}
}

// Push implements frame.Replica.
func (r *localReplica) Push(f *frame.Frame, done func(frame.Result)) {
	ctx, cancel := context.WithTimeout(context.Background(), r.pushTimeout)
	defer cancel()
	done(r.stream.Push(ctx, f))
}

// Incarnation implements frame.Replica.
func (r *localReplica) Incarnation() uint32 { return r.incarnation }

// Close forgets the bindings. No Push may be under way.
func (r *localReplica) Close() error {
	r.stream.Close()
	return nil
}
