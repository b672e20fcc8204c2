package alertmanager

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/nflog/nflogpb"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// TestAConfigurationThatIsDeletedAndPutAgainLeavesOneAlertmanager: the end of the one before does not take
// away what belongs to the next one.
func TestAConfigurationThatIsDeletedAndPutAgainLeavesOneAlertmanager(t *testing.T) {
	c := newFleet(t, 1)
	h := newHook(t, nil)
	m := c.nodes["am-0"]
	for range 10 {
		c.put(t, "t", h.url)
		if err := m.Delete(t.Context(), "t"); err != nil {
			t.Fatal(err)
		}
	}
	c.put(t, "t", h.url)
	c.alert(t, "t", "a")
	eventually(t, "it is notified", func() bool { return h.count("a") == 1 })
	if s := m.Status(t.Context()); len(s) != 1 {
		t.Errorf("alertmanagers %+v", s)
	}
	families, err := m.deps.Reg.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "amphora_alertmanager_alerts_received_total" {
			return
		}
	}
	t.Error("the tenant has no metrics")
}

// TestAStoredConfigurationThatIsWrongCostsNothing: each request for such a tenant would otherwise leave
// an alertmanager that never ran.
func TestAStoredConfigurationThatIsWrongCostsNothing(t *testing.T) {
	c := newFleet(t, 1)
	id := tenant.ID("t")
	if err := c.Write(t.Context(), id, []byte("alertmanager_config: |\n  route: {receiver: nobody}\n")); err != nil {
		t.Fatal(err)
	}
	ask := func() {
		if status, body := c.request(t, id, "GET", "/api/v2/alerts", ""); status == 200 || !strings.Contains(body, "nobody") {
			t.Fatalf("%d %s", status, body)
		}
	}
	ask()
	before := runtime.NumGoroutine()
	for range 200 {
		ask()
	}
	if n := runtime.NumGoroutine() - before; n > 100 {
		t.Errorf("%d goroutines more", n)
	}
	// It is read again once it was changed.
	h := newHook(t, nil)
	c.put(t, id, h.url)
	c.alert(t, id, "a")
	eventually(t, "it is notified", func() bool { return h.count("a") == 1 })
}

// TestWhoLosesTheClaimStopsSending: a sender that was silent for long does not try again what another
// replica sends by then.
func TestWhoLosesTheClaimStopsSending(t *testing.T) {
	c := newFleet(t, 2)
	h := newHook(t, nil)
	c.put(t, "t", h.url)
	m := c.nodes["am-0"]
	in, err := m.instance(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	held, release, err := in.claim(t.Context(), &nflogpb.Receiver{GroupName: "r", Integration: "webhook"}, "group", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	key := "t/r/webhook/0/group"
	if got, _ := c.nodes["am-1"].claims.take(key, "other", "", time.Minute, time.Now()); got == "other" {
		t.Fatal("two have the claim")
	}
	c.nodes["am-1"].claims.take(key, "other", "", time.Hour, time.Now().Add(time.Hour)) // as if the holder had been silent
	select {
	case <-held.Done():
		if !errors.Is(context.Cause(held), errLostClaim) {
			t.Error(context.Cause(held))
		}
	case <-time.After(30 * time.Second):
		t.Error("the sender goes on")
	}
}

// TestWhatNoReplicaTookIsStored: a replica whose others are dead and not yet seen as dead is as good as
// alone.
func TestWhatNoReplicaTookIsStored(t *testing.T) {
	c := newFleet(t, 2)
	h := newHook(t, nil)
	c.put(t, "t", h.url)
	c.mu.Lock()
	c.deaf = true
	c.mu.Unlock()
	c.alert(t, "t", "a")
	eventually(t, "it is notified", func() bool { return h.count("a") == 1 })
	eventually(t, "that is stored", func() bool {
		s, err := readState(t.Context(), c.bucket, "t")
		return err == nil && len(s.GetNotifications()) > 0
	})
}

func TestThePrivateAddressesAreBlockedInEveryShape(t *testing.T) {
	f := firewall{func() limits.View { return limits.AlertmanagerBlockPrivate.With(limits.View{}, true) }}
	for ip, blocked := range map[string]bool{
		"0.0.0.1": true, "100.64.1.1": true, "192.0.0.8": true, "198.18.0.1": true, "240.0.0.1": true, "255.255.255.255": true,
		"64:ff9b::a00:1": true, "64:ff9b:1::7f00:1": true, "2002:a00:1::1": true, "::10.0.0.1": true, "::ffff:169.254.169.254": true, "fd00:ec2::254": true,
		"64:ff9b::808:808": false, "2002:808:808::1": false, "8.8.8.8": false, "2001:4860:4860::8888": false,
	} {
		if err := f.check(netip.MustParseAddr(ip)); (err != nil) != blocked {
			t.Errorf("%s: %v, want blocked %v", ip, err, blocked)
		}
	}
	f = firewall{func() limits.View {
		return limits.AlertmanagerBlockCIDRs.With(limits.View{}, []string{"8.8.0.0/16"})
	}}
	if f.check(netip.MustParseAddr("64:ff9b::808:808")) == nil {
		t.Error("a blocked network is reached through a translator")
	}
}

func TestARegionIsNoPartOfAnAddress(t *testing.T) {
	for _, region := range []string{"x.evil.example/#", "a.b", "a@b", "US"} {
		data := defined(t, nil, "route:", "  receiver: r", "receivers:", "- name: r", "  sns_configs:",
			fmt.Sprintf("  - {topic_arn: 'arn:aws:sns:us-east-1:123456789012:t', sigv4: {region: %q}}", region))
		if _, err := parse(data, rules{}, limits.View{}); err == nil || !strings.Contains(err.Error(), "region") {
			t.Errorf("%q: %v", region, err)
		}
	}
}
