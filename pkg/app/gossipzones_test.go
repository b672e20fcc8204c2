package app

import (
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/config"
)

func TestGossipNeedsToKnowItsZoneIfItStaysThere(t *testing.T) {
	for _, c := range []struct {
		args       []string
		zone, role string
		want       string // in the error
	}{
		{nil, "", "member", ""},
		{[]string{"-memberlist.zone-aware-routing.enabled"}, "", "", "must say the zone"},
		{[]string{"-memberlist.zone-aware-routing.enabled", "-ingester.ring.instance-availability-zone=a"}, "a", "member", ""},
		{[]string{"-memberlist.zone-aware-routing.enabled", "-ingester.ring.instance-availability-zone=a", "-memberlist.zone-aware-routing.instance-availability-zone=b", "-memberlist.zone-aware-routing.role=bridge"}, "b", "bridge", ""},
		{[]string{"-memberlist.zone-aware-routing.role=boss"}, "", "", "boss"},
		{[]string{"-memberlist.zone-aware-routing.enabled", "-ingester.ring.instance-availability-zone=" + strings.Repeat("z", 300)}, "", "", "300 bytes"},
		{[]string{"-memberlist.propagation-delay-tracker.enabled", "-memberlist.propagation-delay-tracker.beacon-interval=0s"}, "", "", "must be above 0"},
	} {
		var cfg Config
		set := config.NewSet()
		set.Mount("", &cfg)
		_, err := config.Load(set, append(c.args, "-memberlist.join=127.0.0.1:1"), func(string) string { return "" })
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q: %v, want %q", c.args, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
			continue
		}
		if z, err := cfg.gossipZones(); err != nil || z.Zone != c.zone || z.Role != c.role || z.Enabled != (len(c.args) > 0) {
			t.Errorf("%q: %+v, %v", c.args, z, err)
		}
	}
}

// TestAMemberTellsAnAddressThatOthersReach: one that listens on all addresses tells one of them, unless it is told which.
func TestAMemberTellsAnAddressThatOthersReach(t *testing.T) {
	first, err := firstAddr()
	if err != nil {
		t.Skip("this machine has no address that others reach: ", err)
	}
	for _, c := range []struct {
		cfg  MemberlistConfig
		addr string
		port int
	}{
		{MemberlistConfig{BindAddr: "127.0.0.1", BindPort: 1}, "127.0.0.1", 1},
		{MemberlistConfig{BindAddr: "0.0.0.0", BindPort: 1}, first, 1},
		{MemberlistConfig{BindAddr: "::", BindPort: 1}, first, 1},
		{MemberlistConfig{BindAddr: "0.0.0.0", BindPort: 1, AdvertiseAddr: "192.0.2.1", AdvertisePort: 2}, "192.0.2.1", 2},
	} {
		if addr, port, err := c.cfg.advertised(); addr != c.addr || port != c.port || err != nil {
			t.Errorf("%+v: %s, %d, %v; want %s, %d", c.cfg, addr, port, err, c.addr, c.port)
		}
	}
}
