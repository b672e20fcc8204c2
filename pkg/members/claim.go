package members

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Claim is a process's wish to be the member ID of a ring.
type Claim struct {
	KV            kv.Client
	Key, ID, Addr string
	// Timeout is the heartbeat timeout, Wait how long a heartbeat of another process is waited for.
	Timeout, Wait time.Duration
	// Answers says whether anything listens at addr.
	Answers func(ctx context.Context, addr string) bool
	// Tokens is the file that the member takes its tokens from if the ring does not know it. Empty: none.
	Tokens string
	Log    *slog.Logger
}

// Check returns an error if a living process at another address has the name. A name whose last
// bearer is silent, or stopped, is free. A file with tokens of a living member is set aside.
// Errors: Conflict, Unavailable.
func (c Claim) Check(ctx context.Context) error {
	d, err := load(ctx, c.KV, c.Key)
	if err != nil {
		return err
	}
	was, ok := d.Ingesters[c.ID]
	if !ok || was.State == ring.LEFT {
		if err := c.ownTokens(d); err != nil {
			return err
		}
	}
	switch {
	case !ok || was.Addr == c.Addr || was.State == ring.LEFT || was.State == ring.LEAVING:
		return nil
	case !was.IsHeartbeatHealthy(c.Timeout, time.Now()) || !c.Answers(ctx, was.Addr):
		return nil
	}
	// Something listens there. If it is that member, it says so with the next heartbeat.
	ctx, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	alive := false
	c.KV.WatchKey(ctx, c.Key, func(v any) bool {
		m, ok := ring.GetOrCreateRingDesc(v).Ingesters[c.ID]
		alive = ok && m.Addr == was.Addr && m.Timestamp > was.Timestamp && m.State != ring.LEFT
		return !alive
	})
	if !alive {
		return nil
	}
	return errs.New(errs.Conflict, "the ring has a living ingester %q at %s; give each ingester its own ingester.ring.instance_id", c.ID, was.Addr)
}

// ownTokens sets the file of tokens aside if a living member has some of them, as of a machine whose disk
// was copied. Of two with the same tokens the ring leaves them to one, by name, and it may be the one whose
// samples are looked for by them that loses them. Errors: Unavailable.
func (c Claim) ownTokens(d *ring.Desc) error {
	if c.Tokens == "" {
		return nil
	}
	tokens, err := ring.LoadTokensFromFile(c.Tokens)
	if err != nil || len(tokens) == 0 {
		return nil // the member chooses new ones
	}
	for id, m := range d.Ingesters {
		if id == c.ID || m.State == ring.LEFT || m.State == ring.LEAVING || !m.IsHeartbeatHealthy(c.Timeout, time.Now()) {
			continue // it may be this one under an earlier name
		}
		for _, t := range m.Tokens {
			if _, mine := slices.BinarySearch(tokens, t); !mine {
				continue
			}
			if err := os.Rename(c.Tokens, c.Tokens+".taken"); err != nil {
				return errs.New(errs.Unavailable, "set the tokens of another ingester aside: %w", err)
			}
			c.Log.Error("tokens on disk are those of another ingester, as of a disk that was copied; they are set aside, and this one chooses its own",
				"ingester", c.ID, "other", id, "file", c.Tokens+".taken")
			return nil
		}
	}
	return nil
}
