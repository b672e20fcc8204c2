package transport

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
)

// unaryCalls is how many single calls one replica has under way to a peer without streams.
const unaryCalls = 4

// session runs one connection until it is lost. opened is when frames began to flow, zero if they
// never did.
func (r *remoteReplica) session(ctx context.Context) (opened time.Time, err error) {
	conn, err := r.dial(r.addr)
	if err != nil {
		return time.Time{}, err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := openStream(ctx, cancel, conn)
	if errs.KindOf(err) == errs.Unimplemented {
		r.log.Info("ingester takes no streams, frames go by single calls", "ingester", r.addr)
		r.setState(unary, nil)
		return time.Now(), r.sendUnary(ctx, conn)
	}
	if err != nil {
		return time.Time{}, err
	}
	r.metrics.connects.Inc()
	opened = time.Now()
	r.setState(up, nil)

	received := make(chan error, 1)
	go func() {
		received <- r.receive(stream)
		cancel() // Ends a send that waits for the peer.
	}()
	sendErr := r.send(ctx, stream)
	cancel()
	switch err := <-received; {
	case errors.Is(err, io.EOF):
		return opened, errs.New(errs.Unavailable, "the ingester ended the stream")
	case errs.KindOf(err) != errs.Canceled:
		return opened, err
	}
	return opened, sendErr
}

// openStream opens the stream and waits until the peer has accepted it, for at most
// connectTimeout, after which it calls cancel.
func openStream(ctx context.Context, cancel func(), conn *grpc.ClientConn) (grpc.ClientStream, error) {
	timer := time.AfterFunc(connectTimeout, cancel)
	stream, err := ingesterpb.NewIngesterWriteClient(conn).Push(ctx)
	if err == nil {
		header, headerErr := stream.Header()
		if err = fromStatus(headerErr); err == nil && len(header.Get(versionHeader)) == 0 {
			// The peer did not run the method; the status says why.
			if err = stream.RecvMsg(&incoming{}); err == nil {
				err = errs.New(errs.Unavailable, "answer without the header %s", versionHeader)
			}
		}
	}
	if !timer.Stop() {
		return nil, errs.New(errs.Unavailable, "no connection within %s", connectTimeout)
	}
	return stream, err
}

// send sends what is queued until ctx ends or the stream breaks.
func (r *remoteReplica) send(ctx context.Context, stream grpc.ClientStream) error {
	var batch []queued
	for {
		if batch = r.take(ctx, batch[:0]); len(batch) == 0 {
			return context.Cause(ctx)
		}
		if err := stream.SendMsg(&outgoing{r.message(batch)}); err != nil {
			return err
		}
	}
}

// take waits for queued frames. It returns none when ctx ends.
func (r *remoteReplica) take(ctx context.Context, batch []queued) []queued {
	for ctx.Err() == nil {
		r.mu.Lock()
		batch = r.window.take(batch, batchBytes)
		more := r.window.unsent < r.window.next
		r.mu.Unlock()
		if more {
			r.signal()
		}
		if len(batch) > 0 {
			return batch
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
		}
	}
	return nil
}

// message joins the records of batch to one encoded ingesterpb.Frames and releases them.
func (r *remoteReplica) message(batch []queued) mem.Buffer {
	size := 0
	for _, q := range batch {
		size += len(q.frame.record)
	}
	buf := r.pool.Get(size + maxEnvelopeBytes)
	out := appendEnvelope((*buf)[:0], size)
	for i, q := range batch {
		out = append(out, q.frame.record...)
		r.release(q.frame)
		batch[i].frame = nil
	}
	*buf = out
	r.metrics.sentBytes.Add(float64(size))
	return mem.NewBuffer(buf, r.pool)
}

// receive gives results to their frames until the stream ends.
func (r *remoteReplica) receive(stream grpc.ClientStream) error {
	for {
		var in incoming
		if err := stream.RecvMsg(&in); err != nil {
			return err
		}
		err := r.deliver(in.data)
		in.buf.Free()
		if err != nil {
			return err
		}
	}
}

func (r *remoteReplica) deliver(message []byte) error {
	for len(message) > 0 {
		rec, rest, err := frame.Next(message)
		if err != nil {
			return err
		}
		a := [1]answer{{seq: rec.Sequence}}
		if err := frame.DecodeResult(rec, &a[0].result); err != nil {
			return err
		}
		r.finish(a[:])
		message = rest
	}
	return nil
}

// sendUnary sends what is queued by single calls until one cannot reach the peer.
func (r *remoteReplica) sendUnary(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client := ingesterpb.NewIngesterWriteClient(conn)
	var wg sync.WaitGroup
	for range unaryCalls {
		wg.Go(func() {
			var batch []queued
			for {
				if batch = r.take(ctx, batch[:0]); len(batch) == 0 {
					return
				}
				if err := r.callUnary(ctx, client, batch); errs.KindOf(err) == errs.Unavailable {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// callUnary sends batch by one call. Frames that the answer leaves out fail.
func (r *remoteReplica) callUnary(ctx context.Context, client ingesterpb.IngesterWriteClient, batch []queued) error {
	ctx, cancel := context.WithTimeout(ctx, r.pushTimeout)
	defer cancel()
	in := &ingesterpb.Frames{}
	answers := make([]answer, 0, len(batch))
	for i, q := range batch {
		in.Data = append(in.Data, q.frame.record...)
		answers = append(answers, answer{seq: q.seq})
		r.release(q.frame)
		batch[i].frame = nil
	}
	out, err := client.PushOnce(ctx, in)
	if err == nil {
		if err = r.deliver(out.GetData()); err == nil {
			err = errs.New(errs.Unavailable, "ingester %s left a frame unanswered", r.addr)
		}
		r.failRest(answers, err)
		return nil
	}
	r.failRest(answers, err)
	return err
}

// failRest fails those of answers that still wait.
func (r *remoteReplica) failRest(answers []answer, err error) {
	result := frame.FailedWith(err)
	for i := range answers {
		r.mu.Lock()
		waits := answers[i].seq >= r.window.base && answers[i].seq < r.window.next && r.window.at(answers[i].seq).done != nil
		r.mu.Unlock()
		if waits {
			answers[i].result = result
			r.finish(answers[i : i+1])
		}
	}
}
