package members

import (
	"time"

	"github.com/grafana/dskit/ring"
)

// relievedMark, among the versions of a member's entry, says that others took it off its work
// because it was silent, not an operator.
const relievedMark uint64 = 1

// Rules say what becomes of silent members that hold samples.
//
// A silent member is first relieved: its entry says that it is read-only, so that its series go to
// others. Reads go on to count it as missing, because samples that it has may be in one other
// replica only. When Keep has passed, others have shipped these, and the entry is removed.
type Rules struct {
	HeartbeatTimeout time.Duration
	// Forget is the silence after which a member is relieved; 0: never.
	Forget time.Duration
	// Keep is how long reads look to members for samples.
	Keep     time.Duration
	Replicas int
	Zones    bool // replicas go to different zones
}

// verdicts are the members to be relieved and removed.
type verdicts struct{ relieve, remove []string }

func (v verdicts) empty() bool { return len(v.relieve)+len(v.remove) == 0 }

// scope counts the members among which a series can move.
type scope struct{ writable, fresh, active int }

// judge decides over the members of d. Nobody is relieved unless it helps and does no harm: most
// members must be well, for who sees few of them is cut off itself; somebody must be there to take
// over, in the same zone or, without zones, as many as there are replicas; and they must be at least
// half, or they would be given more than they can hold.
func (r Rules) judge(d *ring.Desc, now time.Time) verdicts {
	var out verdicts
	if r.Forget <= 0 {
		return out
	}
	all, scopes := r.count(d, now)
	for id, m := range d.Ingesters {
		if m.State == ring.LEFT || !r.silent(m, now) {
			continue
		}
		if m.ReadOnly {
			if now.Sub(time.Unix(max(m.Timestamp, m.ReadOnlyUpdatedTimestamp), 0)) > r.Keep {
				out.remove = append(out.remove, id)
			}
			continue
		}
		s := scopes[r.scopeOf(m)]
		enough := s.active > 0 && (r.Zones || s.active >= r.Replicas)
		if 2*all.fresh > all.writable && 2*s.fresh >= s.writable && enough {
			out.relieve = append(out.relieve, id)
		}
	}
	return out
}

func (r Rules) silent(m ring.InstanceDesc, now time.Time) bool {
	return now.Sub(time.Unix(m.Timestamp, 0)) > r.Forget
}

func (r Rules) scopeOf(m ring.InstanceDesc) string {
	if r.Zones {
		return m.Zone
	}
	return ""
}

// count counts the members that take writes, in the ring and in each scope.
func (r Rules) count(d *ring.Desc, now time.Time) (all scope, scopes map[string]scope) {
	scopes = map[string]scope{}
	for _, m := range d.Ingesters {
		if m.State == ring.LEFT || m.ReadOnly {
			continue
		}
		s := scopes[r.scopeOf(m)]
		s.writable++
		all.writable++
		if m.IsHeartbeatHealthy(r.HeartbeatTimeout, now) {
			s.fresh++
			all.fresh++
			if m.State == ring.ACTIVE {
				s.active++
			}
		}
		scopes[r.scopeOf(m)] = s
	}
	return all, scopes
}

// cutOff says whether the member self sees so few of the others that it must be the one who is cut
// off, so that these may relieve it.
func (r Rules) cutOff(d *ring.Desc, self string, now time.Time) bool {
	writable, fresh := 1, 1
	for id, m := range d.Ingesters {
		if id == self || m.State == ring.LEFT || m.ReadOnly {
			continue
		}
		writable++
		if m.IsHeartbeatHealthy(r.HeartbeatTimeout, now) {
			fresh++
		}
	}
	return 2*fresh < writable
}

// relieve marks the member id of d, as of since. An entry is only taken over by others if it is newer
// than what they have, and some may have heard of a heartbeat that this process has not; so it gets
// the latest time at which the member still counts as silent, which is at since less quiet.
func relieve(d *ring.Desc, id string, since time.Time, quiet time.Duration) {
	m, ok := d.Ingesters[id]
	if !ok {
		return
	}
	m.ReadOnly, m.ReadOnlyUpdatedTimestamp = true, since.Unix()
	m.Versions = ring.InstanceVersions{relievedMark: 1}
	m.Timestamp = max(m.Timestamp+1, since.Add(-quiet).Unix()-1)
	d.Ingesters[id] = m
}

// Relieved says whether m was taken off its work because it was silent.
func Relieved(m ring.InstanceDesc) bool { return m.ReadOnly && m.Versions[relievedMark] != 0 }

// apply carries out v on d.
func (r Rules) apply(v verdicts, d *ring.Desc) {
	for _, id := range v.relieve {
		// All who do so write the same, so that it does not matter who is heard.
		relieve(d, id, time.Unix(d.Ingesters[id].Timestamp, 0).Add(r.Forget), r.HeartbeatTimeout)
	}
	for _, id := range v.remove {
		d.RemoveIngester(id)
	}
}
