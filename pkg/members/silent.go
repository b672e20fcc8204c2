package members

import (
	"maps"
	"time"

	"github.com/go-kit/log"
	"github.com/go-kit/log/level"
	"github.com/grafana/dskit/ring"
)

// silence forgets members of a ring that were not heard of for a while, as a delegate of this process's own
// entry. What counts is the time in which this process listened and a member's heartbeat did not change,
// beside the age of that heartbeat: whoever only compares its age with the own clock removes every living
// member when that clock jumps ahead, with marks from the future that keep them out until the time comes.
type silence struct {
	ring.BasicLifecyclerDelegate
	after time.Duration
	sleep time.Duration // between two heartbeats of this process, from which on it was asleep
	log   log.Logger
	now   func() time.Time

	heard map[string]heard
	last  time.Time // when this process listened last
}

// heard is the newest heartbeat of a member and when it came here.
type heard struct {
	beat int64 // Unix seconds by the member's own clock
	at   time.Time
}

// ForgetSilent returns next with the rule that a member of which nothing is heard for longer than after is
// removed from the ring, where every is the time between two heartbeats. A process that has just started, or
// stood still, has to listen for so long first.
func ForgetSilent(after, every time.Duration, next ring.BasicLifecyclerDelegate, logger log.Logger) ring.BasicLifecyclerDelegate {
	return newSilence(after, every, next, logger, time.Now)
}

func newSilence(after, every time.Duration, next ring.BasicLifecyclerDelegate, logger log.Logger, now func() time.Time) *silence {
	return &silence{BasicLifecyclerDelegate: next, after: after, sleep: max(after/2, 2*every), log: logger, now: now, heard: map[string]heard{}}
}

// OnRingInstanceHeartbeat is called with the ring at each heartbeat of this process, also more than once for
// the same one.
func (s *silence) OnRingInstanceHeartbeat(own *ring.BasicLifecycler, d *ring.Desc, entry *ring.InstanceDesc) {
	s.listen(own.GetInstanceID(), d)
	s.BasicLifecyclerDelegate.OnRingInstanceHeartbeat(own, d, entry)
}

func (s *silence) listen(self string, d *ring.Desc) {
	now := s.now()
	if now.Sub(s.last) > s.sleep { // asleep, it heard nothing, and what came meanwhile is still to be read
		clear(s.heard)
	}
	s.last = now
	maps.DeleteFunc(s.heard, func(id string, _ heard) bool { _, ok := d.Ingesters[id]; return !ok })
	for id, m := range d.Ingesters {
		was, ok := s.heard[id]
		switch {
		case id == self:
		case !ok || was.beat != m.Timestamp:
			s.heard[id] = heard{m.Timestamp, now}
		case now.Sub(was.at) > s.after && now.Sub(time.Unix(m.Timestamp, 0)) > s.after:
			_ = level.Warn(s.log).Log("msg", "member of the ring removed, nothing was heard of it", "instance", id,
				"last_heartbeat", time.Unix(m.Timestamp, 0).UTC(), "for", s.after)
			d.RemoveIngester(id)
		}
	}
}
