package app

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/grafana/dskit/dns"
	"github.com/grafana/dskit/kv/memberlist"
	"github.com/grafana/dskit/services"
)

// rejoin exchanges everything with one of the members to join, drawn anew each time, every interval.
// Members that lost each other long enough to count as dead do not look for each other again by
// themselves; with this, the two halves of a cluster that was split find together.
func (a *App) rejoin(svc *memberlist.KVInitService, names *dns.Provider) error {
	every := a.cfg.Memberlist.RejoinInterval
	if every <= 0 || len(a.cfg.Memberlist.Join) == 0 {
		return nil
	}
	try := func(ctx context.Context) error {
		kv, err := svc.GetMemberlistKV()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, every)
		defer cancel()
		all := addresses(ctx, a.cfg.Memberlist.Join, names)
		if len(all) == 0 {
			return nil
		}
		to := all[rand.IntN(len(all))]
		if _, err := kv.JoinMembers([]string{to}); err != nil {
			a.log.Debug("member not reached, another one is tried later", "member", to, "err", err)
		}
		return nil
	}
	first := rand.N(every) + time.Millisecond // members that start together do not ask together
	run := func(ctx context.Context) error {
		wait := time.NewTimer(first)
		defer wait.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-wait.C:
			}
			if err := try(ctx); err != nil {
				return err
			}
			wait.Reset(every)
		}
	}
	return a.serve("memberlist-rejoin", services.NewBasicService(nil, run, nil))
}

// addresses are the members to join, DNS names resolved. A name that cannot be resolved now keeps
// its last addresses.
func addresses(ctx context.Context, join []string, names *dns.Provider) []string {
	var out, ask []string
	for _, m := range join {
		if strings.Contains(m, "+") {
			ask = append(ask, m)
		} else {
			out = append(out, m)
		}
	}
	if len(ask) > 0 {
		_ = names.Resolve(ctx, ask) // it counts its failures itself
	}
	return append(out, names.Addresses()...)
}
