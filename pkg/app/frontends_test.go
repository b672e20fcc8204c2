package app

import (
	"errors"
	"strings"
	"testing"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// shownRing is a ring of which only the healthy members are asked for.
type shownRing struct {
	ring.ReadRing
	members []ring.InstanceDesc
	err     error
}

func (r shownRing) GetAllHealthy(ring.Operation) (ring.ReplicationSet, error) {
	return ring.ReplicationSet{Instances: r.members}, r.err
}

// TestFrontendsKnowTheOthersOrSayWhyNot has one that asks: of the others, it must not ask itself, and where none can be found it
// must not look as if there were none.
func TestFrontendsKnowTheOthersOrSayWhyNot(t *testing.T) {
	me, b, c := ring.InstanceDesc{Id: "a", Addr: "10.0.0.1:9095"}, ring.InstanceDesc{Id: "b", Addr: "10.0.0.2:9095"}, ring.InstanceDesc{Id: "c", Addr: "10.0.0.3:9095"}
	for name, x := range map[string]struct {
		mode, store string
		join        []string
		ring        shownRing
		want, err   string
	}{
		"among others":               {"ring", inGossip, nil, shownRing{members: []ring.InstanceDesc{c, me, b}}, "b c", ""},
		"the first one":              {"ring", inGossip, nil, shownRing{members: []ring.InstanceDesc{me}}, "", ""},
		"by DNS, joined":             {"dns", inGossip, []string{"x"}, shownRing{members: []ring.InstanceDesc{me}}, "", ""},
		"by DNS, in a store":         {"dns", "etcd", nil, shownRing{members: []ring.InstanceDesc{me}}, "", ""},
		"by DNS, others joined it":   {"dns", inGossip, nil, shownRing{members: []ring.InstanceDesc{b, me}}, "b", ""},
		"by DNS, with nobody to ask": {"dns", inGossip, nil, shownRing{members: []ring.InstanceDesc{me}}, "", "memberlist.join_members names no process"},
		"before the ring is there":   {"ring", inGossip, nil, shownRing{err: errors.New("empty ring")}, "", "empty ring"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &App{}
			a.cfg.Reads.Schedulers.Mode, a.cfg.KVStore.Store, a.cfg.Memberlist.Join = x.mode, x.store, x.join
			others, err := a.otherFrontends(x.ring, me.Addr)
			var got []string
			for _, p := range others {
				got = append(got, p.ID)
			}
			if strings.Join(got, " ") != x.want || (err == nil) != (x.err == "") || err != nil && (!strings.Contains(err.Error(), x.err) || errs.KindOf(err) != errs.Unavailable) {
				t.Errorf("others are %v, %v", got, err)
			}
		})
	}
}
