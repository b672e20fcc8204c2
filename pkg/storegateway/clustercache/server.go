package clustercache

import (
	"context"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/cachepb"
)

// begin waits for room to answer. end must be called.
func (c *Cache) begin(ctx context.Context) (end func(), err error) {
	select {
	case c.answers <- struct{}{}:
		return func() { <-c.answers }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// GetMulti implements cachepb.ClusterCacheServer. Errors: Invalid for a request that is too large.
func (c *Cache) GetMulti(ctx context.Context, req *cachepb.GetMultiRequest) (*cachepb.GetMultiResponse, error) {
	if len(req.Keys) > mostKeys || len(req.Asker) > mostKeyBytes {
		return nil, errs.New(errs.Invalid, "%d keys are asked for, %d may be, by a name of %d bytes", len(req.Keys), mostKeys, len(req.Asker))
	}
	for _, key := range req.Keys {
		if err := checkKey(key); err != nil {
			return nil, err
		}
	}
	end, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	out, bytes := &cachepb.GetMultiResponse{}, 0
	for i, key := range req.Keys {
		data, wait := c.held.get(key, req.Asker, req.Lease)
		switch bytes += len(data); {
		case wait:
			out.Wait = append(out.Wait, uint32(i))
		case bytes > mostCallBytes:
			return out, nil // the rest may be read from the bucket
		case data != nil:
			out.Found = append(out.Found, &cachepb.Found{Key: uint32(i), Data: data})
		}
	}
	return out, nil
}

// SetMulti implements cachepb.ClusterCacheServer. Errors: Invalid for a request that is too large.
func (c *Cache) SetMulti(ctx context.Context, req *cachepb.SetMultiRequest) (*cachepb.SetMultiResponse, error) {
	if len(req.Items) > mostKeys {
		return nil, errs.New(errs.Invalid, "%d items are stored, %d may be", len(req.Items), mostKeys)
	}
	bytes := 0
	for _, i := range req.Items {
		if err := checkKey(i.GetKey()); err != nil {
			return nil, err
		}
		bytes += len(i.Data)
		if len(i.Data) == 0 || len(i.Data) > mostItemBytes || bytes > mostCallBytes || i.TtlMs <= 0 || i.TtlMs > mostTTL.Milliseconds() {
			return nil, errs.New(errs.Invalid, "an item of %d bytes is stored for %d ms, %d bytes together; at most %d and %d may be", len(i.Data), i.TtlMs, bytes, mostItemBytes, mostCallBytes)
		}
	}
	end, err := c.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	for _, i := range req.Items {
		c.held.set(i.Key, i.Data, time.Duration(i.TtlMs)*time.Millisecond)
	}
	return &cachepb.SetMultiResponse{}, nil
}

func checkKey(key string) error {
	if key == "" || len(key) > mostKeyBytes {
		return errs.New(errs.Invalid, "a key has %d bytes, it must have 1 to %d", len(key), mostKeyBytes)
	}
	return nil
}
