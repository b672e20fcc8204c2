package members

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-kit/log"
	"github.com/grafana/dskit/ring"
)

// listener is a process that hears of others, with a clock that can be set: the hands of the clock move with
// wrong, what is between two readings does not.
type listener struct {
	*silence
	d     *ring.Desc
	alive []string // who sends heartbeats, by clocks that are right
}

func newListener(members string) *listener {
	l := &listener{d: ring.NewDesc(), alive: strings.Fields(members)}
	l.silence = newSilence(10*time.Minute, 15*time.Second, nil, log.NewNopLogger(), time.Now)
	return l
}

// pass lets time pass in which heartbeats come and go.
func (l *listener) pass(d time.Duration) {
	for range d / (15 * time.Second) {
		time.Sleep(15 * time.Second)
		for _, id := range l.alive {
			l.d.Ingesters[id] = ring.InstanceDesc{Id: id, State: ring.ACTIVE, Timestamp: time.Now().Unix()}
		}
		l.listen("self", l.d)
	}
}

func (l *listener) members() string {
	return strings.Join(slices.Sorted(maps.Keys(l.d.Ingesters)), " ")
}

func (l *listener) want(t *testing.T, members string) {
	t.Helper()
	if got := l.members(); got != members {
		t.Errorf("the ring has %q, want %q", got, members)
	}
}

func TestWhoIsSilentIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener("a b self")
		l.pass(time.Minute)
		l.alive = []string{"a", "self"}
		l.pass(10 * time.Minute)
		l.want(t, "a b self")
		l.pass(time.Minute)
		l.want(t, "a self")
	})
}

// A process that starts among entries of the dead listens first.
func TestWhoStartsListensBeforeItForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener("a self")
		l.d.Ingesters["old"] = ring.InstanceDesc{Id: "old", Timestamp: time.Now().Add(-time.Hour).Unix()}
		l.pass(10 * time.Minute)
		l.want(t, "a old self")
		l.pass(time.Minute)
		l.want(t, "a self")
	})
}

// Ahead by an hour, all heartbeats look old to it, and theirs go on to come.
func TestWhoseClockIsAheadForgetsNobodyThatLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener("a b self")
		l.pass(time.Minute)
		l.now = func() time.Time { return time.Now().Add(time.Hour) } // of what is heard, the age is an hour
		l.last, l.heard = l.last.Add(time.Hour), moved(l.heard, time.Hour)
		l.pass(time.Hour)
		l.want(t, "a b self")
	})
}

// moved are the same moments by a clock that has been set: the time between two moments is measured without
// the hands of the clock.
func moved(all map[string]heard, by time.Duration) map[string]heard {
	out := map[string]heard{}
	for id, h := range all {
		out[id] = heard{h.beat, h.at.Add(by)}
	}
	return out
}

// One who slept for longer than that wakes up with heartbeats that are all old, and reads the newer ones next.
func TestWhoSleptForgetsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener("a b self")
		l.pass(time.Minute)
		time.Sleep(time.Hour)
		l.listen("self", l.d)
		l.want(t, "a b self")
		l.pass(time.Hour)
		l.want(t, "a b self")
	})
}

// A member whose clock is wrong lives all the same, and one from the future is kept until its time has come.
func TestHeartbeatsOfAWrongClockAreHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListener("a self")
		for range 240 {
			l.d.Ingesters["late"] = ring.InstanceDesc{Id: "late", Timestamp: time.Now().Add(-time.Hour).Unix()}
			l.pass(15 * time.Second)
		}
		l.want(t, "a late self")
		l.d.Ingesters["early"] = ring.InstanceDesc{Id: "early", Timestamp: time.Now().Add(time.Hour).Unix()}
		l.pass(69 * time.Minute)
		l.want(t, "a early self")
		l.pass(2 * time.Minute)
		l.want(t, "a self")
	})
}
