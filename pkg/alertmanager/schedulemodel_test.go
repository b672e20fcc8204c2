package alertmanager

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// span is a stretch of time. It has no end if to is zero.
type span struct{ from, to time.Time }

// trouble is a time in which less is promised.
type trouble struct {
	span
	kind string
}

// known is an alert as its sender knows it.
type known struct {
	name, cluster, severity, team string
	fires                         []span
}

// quiet is a silence as its maker knows it. Zero times have not come.
type quiet struct {
	label, value                          string
	asked, known, ends, removing, removed time.Time
}

// heard is a notification as its receiver knows it.
type heard struct {
	at, answered     time.Time
	by               *life
	group, key       string
	firing, resolved []string
}

// tally counts what was held against the model.
type tally struct{ Notifications, Told, Ended, Silenced, Inhibited, Repeated, Doubtful, Again int }

func (t *tally) add(x tally) {
	t.Notifications, t.Told, t.Ended, t.Silenced = t.Notifications+x.Notifications, t.Told+x.Told, t.Ended+x.Ended, t.Silenced+x.Silenced
	t.Inhibited, t.Repeated, t.Doubtful, t.Again = t.Inhibited+x.Inhibited, t.Repeated+x.Repeated, t.Doubtful+x.Doubtful, t.Again+x.Again
}

func (a *known) id() string { return a.name + "@" + a.cluster }

func (a *known) labels() map[string]string {
	return map[string]string{"alertname": a.name, "cluster": a.cluster, "severity": a.severity, "team": a.team}
}

// groups are those that an alert is in.
func (a *known) groups() []string {
	out := []string{"main/" + a.cluster}
	if a.team == "b" {
		out = append(out, "b/"+a.name+"/"+a.cluster)
	}
	return out
}

// groupOf is the group of a notification.
func groupOf(receiver string, labels map[string]string) string {
	if receiver == "b" {
		return "b/" + labels["alertname"] + "/" + labels["cluster"]
	}
	return receiver + "/" + labels["cluster"]
}

// firing says whether an alert fires all the time from x to y, and whether at no time.
func (a *known) firing(x, y time.Time) (always, never bool) {
	never = true
	for _, f := range a.fires {
		ends := f.to
		if ends.IsZero() {
			ends = y.Add(time.Hour)
		}
		always = always || !f.from.After(x) && ends.After(y)
		never = never && (f.from.After(y) || ends.Before(x))
	}
	return always, never
}

// covers says whether a silence is surely there from x to y, and whether surely not. What was not answered
// may be so or not.
func (q *quiet) covers(a *known, x, y time.Time) (always, never bool) {
	if a.labels()[q.label] != q.value {
		return false, true
	}
	ends := q.ends
	if !q.removed.IsZero() {
		ends = q.removed
	}
	least := q.ends
	if !q.removing.IsZero() {
		least = q.removing
	}
	return !q.known.IsZero() && !q.known.After(x) && least.After(y), q.asked.After(y) || ends.Before(x)
}

// held says whether an alert is held back all the time, by a silence or an alert, or at no time.
func (s *schedule) held(a *known, x, y time.Time) (silenced, inhibited, never bool) {
	never = true
	for _, q := range s.silences {
		always, not := q.covers(a, x, y)
		silenced, never = silenced || always, never && not
	}
	for _, b := range s.alerts {
		if a.severity == "warning" && b.severity == "critical" && a.cluster == b.cluster {
			always, not := b.firing(x, y)
			inhibited, never = inhibited || always, never && not
		}
	}
	return silenced, inhibited, never
}

// trouble notes the begin or the end of a time in which less is promised.
func (s *schedule) trouble(kind string, begins bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since, is := s.open[kind]
	switch {
	case begins && !is:
		s.open[kind] = time.Now()
	case !begins && is:
		delete(s.open, kind)
		s.troubles = append(s.troubles, trouble{span{since, time.Now()}, kind})
	}
}

// calm says whether there was no trouble from x to y, of one of these kinds if there are any.
func (s *schedule) calm(x, y time.Time, kinds ...string) bool {
	return !slices.ContainsFunc(s.troubles, func(t trouble) bool {
		return t.from.Before(y) && t.to.After(x) && (len(kinds) == 0 || slices.Contains(kinds, t.kind))
	})
}

// latest is how old may be what a notification says: as long as a group tries, which begins when it looks.
func (s *schedule) latest() time.Duration {
	return max(s.interval, 10*time.Second) + replicasOfSchedule*s.peer + 10*time.Second
}

// heardOf is how long it takes until all replicas know what changed: it is sent again every minute.
const heardOf = 2 * time.Minute

// within is how long it takes at most until a receiver is told what changed, also if a replica dies
// meanwhile that has just begun to tell it.
func (s *schedule) within() time.Duration { return heardOf + 3*s.latest() }

// doubtful says that the sender of n cannot have told the others that it arrived.
func (n *heard) doubtful() bool {
	return n.answered.IsZero() || !n.by.death.IsZero() && n.by.death.Before(n.answered.Add(5*time.Second))
}

// fault says what is wrong with what was heard.
func (s *schedule) fault(n *heard, format string, args ...any) {
	s.t.Errorf("%s at %s: "+format, append([]any{n.group, n.at.Format("15:04:05.000")}, args...)...)
}

// judge holds what was heard against what was so.
func (s *schedule) judge() (t tally) {
	for kind := range s.open {
		s.troubles = append(s.troubles, trouble{span{s.open[kind], time.Now()}, kind})
	}
	byID := map[string]*known{}
	for _, a := range s.alerts {
		byID[a.id()] = a
	}
	groups := map[string][]*heard{}
	for _, n := range s.heard {
		groups[n.group] = append(groups[n.group], n)
		s.judgeTruth(n, byID, &t)
	}
	for _, all := range groups {
		slices.SortStableFunc(all, func(a, b *heard) int { return a.at.Compare(b.at) })
		s.judgeRepetitions(all, &t)
	}
	for _, a := range s.alerts {
		for _, group := range a.groups() {
			s.judgeKnowledge(a, groups[group], group, &t)
		}
	}
	if s.t.Failed() {
		s.t.Log(strings.Join(s.steps, "\n"))
	}
	return t
}

// judgeTruth wants that what n says was so.
func (s *schedule) judgeTruth(n *heard, byID map[string]*known, t *tally) {
	t.Notifications++
	if n.doubtful() {
		t.Doubtful++
	}
	since := n.at.Add(-s.latest() - heardOf)
	if !s.calm(since, n.at) {
		return
	}
	for _, id := range n.firing {
		a := byID[id]
		if _, never := a.firing(since, n.at); never {
			s.fault(n, "%s is said to fire and has not since %s", id, since)
		}
		silenced, inhibited, _ := s.held(a, since, n.at)
		if silenced {
			s.fault(n, "%s is silenced since before %s", id, since)
		}
		if inhibited {
			s.fault(n, "%s is inhibited since before %s", id, since)
		}
	}
	for _, id := range n.resolved {
		if always, _ := byID[id].firing(since, n.at); always {
			s.fault(n, "%s is said to have ended and fires since before %s", id, since)
		}
	}
}

// changes says whether a receiver that was told before last has to be told next: something fires that was
// not told, something ended, or it is time to repeat it.
func (s *schedule) changes(last, next *heard) bool {
	fresh := func(all, known []string) bool {
		return slices.ContainsFunc(all, func(id string) bool { return !slices.Contains(known, id) })
	}
	switch {
	case last == nil:
		return len(next.firing) > 0
	case fresh(next.firing, last.firing):
		return true
	case len(next.firing) == 0:
		return len(last.firing) > 0
	case fresh(next.resolved, last.resolved):
		return true
	}
	return next.at.Sub(last.at) >= s.repeat-s.latest()
}

// judgeRepetitions wants that nobody is told the same twice, unless who told it died before it could say
// so, and then under one name.
func (s *schedule) judgeRepetitions(all []*heard, t *tally) {
	var base []*heard // what may be the last that the replicas know
	names := map[string]int{}
	for i, n := range all {
		first := n.at
		if i > 0 {
			first = all[max(0, i-len(base))].at
		}
		again := slices.ContainsFunc(all[:i], func(b *heard) bool { return b.key == n.key })
		switch changed := i == 0 || len(base) == 0 || slices.ContainsFunc(base, func(b *heard) bool { return s.changes(b, n) }); {
		case n.key == "":
			s.fault(n, "it has no name")
		case !s.calm(first.Add(-s.within()), n.at, "network", "weak"):
		case !changed && !again:
			s.fault(n, "nothing changed since the last one")
		}
		names[n.key]++
		if again {
			t.Again++
		}
		if !n.doubtful() {
			base = base[:0]
		} else if i == 0 {
			base = append(base, nil)
		}
		base = append(base, n)
	}
	for name, times := range names {
		allowed := 1
		var last *heard
		for _, n := range all {
			if n.key == name {
				if n.doubtful() {
					allowed++
				}
				last = n
			}
		}
		for _, x := range s.troubles {
			if (x.kind == "network" || x.kind == "weak") && x.from.Before(last.at) && x.to.Add(s.within()).After(all[0].at) {
				allowed += replicasOfSchedule - 1 // each side of a partition may say it
			}
		}
		if times > allowed {
			s.fault(last, "%s was sent %d times, and may be %d times", name, times, allowed)
		}
	}
}

// judgeKnowledge wants that the receiver of a group knows in time what has been so for a while, and looks
// every minute.
func (s *schedule) judgeKnowledge(a *known, all []*heard, group string, t *tally) {
	begin, end := a.span(), time.Now()
	if begin.IsZero() {
		return
	}
	for at := begin.Add(s.within()); at.Before(end); at = at.Add(time.Minute) {
		since := at.Add(-s.within())
		i, _ := slices.BinarySearchFunc(all, at, func(n *heard, at time.Time) int { return cmp.Or(n.at.Compare(at), -1) })
		last := &heard{at: at, group: group}
		if i > 0 {
			last = all[i-1]
		}
		always, never := a.firing(since, at)
		silenced, inhibited, free := s.held(a, since, at)
		if !s.calm(since, at) || i > 0 && last.doubtful() {
			continue
		}
		knows := slices.Contains(last.firing, a.id())
		switch {
		case always && free:
			t.Told++
			if !knows {
				s.fault(last, "%s fires since before %s, and that is not known at %s", a.id(), since, at)
			}
			if from := at.Add(-s.repeat - s.within()); i > 0 && from.After(begin) && s.calm(from, at) {
				if always, _ := a.firing(from, at); always && last.at.Before(from) {
					s.fault(last, "nothing was repeated until %s", at)
				}
				t.Repeated++
			}
		case never && s.freeSinceEnd(a, at):
			t.Ended++
			if knows {
				s.fault(last, "%s has ended before %s, and that is not known at %s", a.id(), since, at)
			}
		}
		if silenced && always {
			t.Silenced++
		}
		if inhibited && always {
			t.Inhibited++
		}
	}
}

// span begins when the alert first fires.
func (a *known) span() time.Time {
	if len(a.fires) == 0 {
		return time.Time{}
	}
	return a.fires[0].from
}

// freeSinceEnd says that nothing held a back since it ended, so that its end had to be told, and that it
// ended so lately that its sender still says so. A minute before, too: a group that is quiet forgets.
func (s *schedule) freeSinceEnd(a *known, at time.Time) bool {
	var ended time.Time
	for _, f := range a.fires {
		if !f.to.IsZero() && f.to.Before(at) {
			ended = f.to
		}
	}
	_, _, free := s.held(a, ended.Add(-s.latest()), at)
	return free && at.Sub(ended) < 14*time.Minute
}
