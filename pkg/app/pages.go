package app

import (
	"context"
	"time"

	"github.com/amphora-metrics/amphora/pkg/api"
	"github.com/amphora-metrics/amphora/pkg/api/admin"
	"github.com/amphora-metrics/amphora/pkg/compactor"
	"github.com/amphora-metrics/amphora/pkg/ingester"
	"github.com/amphora-metrics/amphora/pkg/members"
	"github.com/amphora-metrics/amphora/pkg/scheduler"
	"github.com/amphora-metrics/amphora/pkg/storegateway"
)

// mountPages gives the pages of rings and gossip, in processes that have them.
func (a *App) mountPages(d *api.Deps) error {
	if a.cfg.stranger() {
		return nil
	}
	r, err := a.ingesterRing()
	if err != nil {
		return err
	}
	rules := a.forgetRules()
	d.IngesterRing = roster{&members.Roster{KV: r.KVClient, Key: ingester.RingKey, Timeout: a.cfg.Ring.Heartbeats.Timeout,
		Zones: a.cfg.Ring.ZoneAwareness, Rules: &rules}}
	if a.cfg.runs("distributor") {
		peers, err := a.distributorRing()
		if err != nil {
			return err
		}
		d.DistributorRing = roster{&members.Roster{KV: peers.store, Key: distributorRingKey, Timeout: a.cfg.DistributorRing.Heartbeats.Timeout}}
		if !a.cfg.alone() {
			if d.Peers, err = a.deltaPeers(); err != nil {
				return err
			}
		}
	}
	if a.cfg.runs("store-gateway") || a.cfg.runs("querier") {
		if r, err = a.storeRing(); err != nil {
			return err
		}
		d.StoreGatewayRing = roster{&members.Roster{KV: r.KVClient, Key: storegateway.RingKey, Timeout: a.cfg.StoreRing.Heartbeats.Timeout,
			Zones: a.cfg.StoreRing.ZoneAwareness}}
	}
	if (a.cfg.runs("query-scheduler") || a.cfg.runs("querier") || a.cfg.runs("query-frontend")) && !a.cfg.alone() && a.cfg.Reads.Schedulers.Mode == "ring" {
		if r, err = a.schedulerRing(); err != nil {
			return err
		}
		d.SchedulerRing = roster{&members.Roster{KV: r.KVClient, Key: scheduler.RingKey, Timeout: a.cfg.Reads.Schedulers.Heartbeats.Timeout}}
	}
	if err := a.mountFrontendRing(d); err != nil {
		return err
	}
	if a.cfg.runs("compactor") && !a.cfg.alone() {
		if r, err = a.compactorRing(); err != nil {
			return err
		}
		d.CompactorRing = roster{&members.Roster{KV: r.KVClient, Key: compactor.RingKey, Timeout: a.cfg.CompactorRing.Heartbeats.Timeout}}
	}
	if a.cfg.usesGossip() {
		m, err := a.memberlistKV()
		if err != nil {
			return err
		}
		d.Memberlist = m
	}
	return nil
}

// roster gives the members of a ring the shape that the API asks for.
type roster struct{ *members.Roster }

// Members is part of admin.RingView.
func (r roster) Members(ctx context.Context) ([]admin.RingMember, error) {
	all, err := r.Roster.Members(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]admin.RingMember, len(all))
	for i, m := range all {
		_, updated := m.Entry.GetReadOnlyState()
		out[i] = admin.RingMember{
			ID: m.ID, State: m.State, Address: m.Entry.Addr, Zone: m.Entry.Zone, Heartbeat: time.Unix(m.Entry.Timestamp, 0).UTC(),
			Registered: m.Entry.GetRegisteredAt().UTC(), ReadOnly: m.Entry.ReadOnly, ReadOnlyUpdated: updated.UTC(),
			Tokens: m.Entry.Tokens, Ownership: 100 * m.Share, Note: m.Note,
		}
	}
	return out, nil
}
