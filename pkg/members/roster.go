package members

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// unhealthy is the state shown of a member that is silent.
const unhealthy = "UNHEALTHY"

// Roster shows a ring to operators, and lets them forget a member.
type Roster struct {
	KV      kv.Client
	Key     string
	Timeout time.Duration // of heartbeats
	// Zones says that each zone is a ring of its own.
	Zones bool
	// Rules are those of members that hold samples; nil: a member that is forgotten leaves nothing.
	Rules *Rules
}

// Member is one member of a ring.
type Member struct {
	ID    string
	State string // of dskit, or UNHEALTHY
	Entry ring.InstanceDesc
	// Share is the part of the ring, or of the zone, that is the member's: 0 to 1.
	Share float64
	// Note says what is not plain from the rest; may be empty.
	Note string
}

// Members returns the members, sorted by ID. Errors: Unavailable.
func (r *Roster) Members(ctx context.Context) ([]Member, error) {
	d, err := load(ctx, r.KV, r.Key)
	if err != nil {
		return nil, err
	}
	if !r.Zones { // shares are counted by zone
		flat := ring.NewDesc()
		for id, m := range d.Ingesters {
			m.Zone = ""
			flat.Ingesters[id] = m
		}
		return r.list(d, flat.CountTokens()), nil
	}
	return r.list(d, d.CountTokens()), nil
}

func (r *Roster) list(d *ring.Desc, owned map[string]int64) []Member {
	now := time.Now()
	out := make([]Member, 0, len(d.Ingesters))
	for _, id := range slices.Sorted(maps.Keys(d.Ingesters)) {
		e := d.Ingesters[id]
		m := Member{ID: id, State: e.State.String(), Entry: e, Share: float64(owned[id]) / ringSize}
		if !e.IsHeartbeatHealthy(r.Timeout, now) {
			m.State = unhealthy
		}
		m.Note = r.note(e, now)
		out = append(out, m)
	}
	return out
}

// note explains a member of a ring of members that hold samples.
func (r *Roster) note(e ring.InstanceDesc, now time.Time) string {
	switch {
	case r.Rules == nil:
		return ""
	case Relieved(e):
		until := time.Unix(max(e.Timestamp, e.ReadOnlyUpdatedTimestamp), 0).Add(r.Rules.Keep)
		return "Its series went to others. Reads count it as missing until " + until.UTC().Format(time.RFC3339) + "."
	case e.ReadOnly:
		return "Takes no writes."
	case r.Rules.Forget > 0 && r.Rules.silent(e, now):
		return "Silent for more than " + strconv.Itoa(int(r.Rules.Forget/time.Minute)) + " minutes, but others cannot take its series."
	}
	return ""
}

// Forget takes a silent member out of the ring. One that may have samples which are in one other
// replica only is relieved of its series first; asked for again, it goes, and nobody knows any more
// that samples may be missing. Errors: NotFound, Conflict (it is alive), Unavailable.
func (r *Roster) Forget(ctx context.Context, id string) error {
	var refused error
	err := change(ctx, r.KV, r.Key, func(d *ring.Desc) bool {
		m, ok := d.Ingesters[id]
		// Who relieves a silent one dates that as late as it may be.
		alive := m.IsHeartbeatHealthy(r.Timeout, time.Now()) && m.State != ring.LEAVING && !Relieved(m)
		switch {
		case !ok:
			refused = errs.New(errs.NotFound, "the ring has no member %q", id)
		case alive && r.Rules != nil:
			refused = errs.New(errs.Conflict, "%q is alive and would come back with its next heartbeat; stop it first", id)
		case r.Rules != nil && !m.ReadOnly:
			relieve(d, id, time.Now(), r.Timeout)
		default:
			d.RemoveIngester(id)
		}
		return refused == nil
	})
	if refused != nil {
		return refused
	}
	return err
}
