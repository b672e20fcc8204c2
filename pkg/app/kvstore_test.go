package app

import (
	"context"
	"strings"
	"testing"

	"github.com/grafana/dskit/kv"

	"github.com/amphora-metrics/amphora/pkg/limits"
)

func TestStoresThatCannotWorkAreRefused(t *testing.T) {
	for args, want := range map[string]string{
		"-kvstore.store=consul -kvstore.consul.hostname=10.0.0.1:8500": "without encryption",
		"-kvstore.store=consul -kvstore.consul.hostname=agent":         "host:port",
		"-kvstore.store=consul -kvstore.consul.client-timeout=10s":     "http_client_timeout",
		"-kvstore.store=consul -kvstore.consul.watch-burst-size=0":     "watch_burst_size",
		"-kvstore.store=multi":                                                                        "kvstore.multi.primary",
		"-kvstore.store=multi -kvstore.multi.primary=consul":                                          "kvstore.multi.secondary",
		"-kvstore.store=multi -kvstore.multi.primary=consul -kvstore.multi.secondary=consul":          "is the same",
		"-kvstore.store=multi -kvstore.multi.primary=consul -kvstore.multi.secondary=etcd":            "kvstore.etcd.endpoints",
		"-kvstore.store=multi -kvstore.multi.primary=inmemory":                                        "memberlist, etcd, consul",
		"-distributor.ha-tracker.enable=true -distributor.ha-tracker.store=multi -target=distributor": "kvstore.multi.primary",
	} {
		if _, _, err := load(t, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want an error with %q", args, err, want)
		}
	}
}

func TestAProcessUsesTheStoresThatItIsToldOf(t *testing.T) {
	for args, want := range map[string]string{
		"-target=ingester":                       "memberlist",
		"-target=ingester -kvstore.store=consul": "consul",
		"-target=ingester -kvstore.store=multi -kvstore.multi.primary=consul -kvstore.multi.secondary=memberlist":    "memberlist consul",
		"-target=distributor -kvstore.store=consul -distributor.ha-tracker.enable=true":                              "memberlist consul",
		"-target=ingester -kvstore.store=consul -distributor.ha-tracker.enable=true":                                 "consul",
		"-target=distributor -distributor.ha-tracker.enable=true -distributor.ha-tracker.store=consul":               "memberlist consul",
		"-target=continuous-test -kvstore.store=consul -continuous-test.write-endpoint=http://127.0.0.1/api/v1/push": "",
	} {
		c, _, err := load(t, strings.Fields(args)...)
		if err != nil && !strings.Contains(args, "continuous") {
			t.Errorf("%s: %v", args, err)
			continue
		}
		var got []string
		for _, store := range []string{inGossip, inEtcd, inConsul} {
			if c.uses(store) {
				got = append(got, store)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: uses %v, want %s", args, got, want)
		}
	}
}

func TestTheRuntimeConfigurationSaysWhichStoreCounts(t *testing.T) {
	var says limits.StoreSwitch
	s := newStoreSwitch(&MultiConfig{Primary: "consul", Secondary: "etcd", Mirror: true}, func() limits.StoreSwitch { return says })
	a, b := s.client(), s.client()
	look := func(primary string, mirror bool) {
		t.Helper()
		if err := s.look(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, c := range []<-chan kv.MultiRuntimeConfig{a, b} {
			select {
			case got := <-c:
				if primary == "" || got.PrimaryStore != primary || got.Mirroring == nil || *got.Mirroring != mirror {
					t.Errorf("a client is told %+v, want %s and %t", got, primary, mirror)
				}
			default:
				if primary != "" {
					t.Errorf("a client is not told of %s", primary)
				}
			}
		}
	}
	look("", false)
	says = limits.StoreSwitch{Primary: "etcd"}
	look("etcd", true)
	look("", false) // once
	says = limits.StoreSwitch{Primary: "etcd", MirrorGiven: true}
	if err := s.look(context.Background()); err != nil {
		t.Fatal(err)
	}
	says = limits.StoreSwitch{} // what was not taken is replaced
	look("consul", true)
}
