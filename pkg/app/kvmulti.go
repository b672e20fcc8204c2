package app

import (
	"context"
	"time"

	"github.com/grafana/dskit/kv"
	"github.com/grafana/dskit/services"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// MultiConfig is two stores that hold the same, for moving from one to the other while all
// processes run. Which one counts, and whether changes go to both, may be said again in the runtime
// configuration.
type MultiConfig struct {
	Primary, Secondary string
	Mirror             bool
	MirrorTimeout      time.Duration
}

// Declare names the settings.
func (c *MultiConfig) Declare(s *config.Set) {
	s.String(&c.Primary, "primary", "", "With store multi: the store that is read, and changed first. multi_kv_config.primary of the runtime configuration replaces it.").
		OneOf("", inGossip, inEtcd, inConsul).Expert()
	s.String(&c.Secondary, "secondary", "", "The other one.").OneOf("", inGossip, inEtcd, inConsul).Expert()
	s.Bool(&c.Mirror, "mirror_enabled", false, "Whether changes go to the other one, too. multi_kv_config.mirror_enabled of the runtime configuration replaces it.").Expert()
	s.Duration(&c.MirrorTimeout, "mirror_timeout", 2*time.Second, "How long that may take. 0: as long as the change itself.").Expert()
}

// check refuses two stores that are not two.
func (c *MultiConfig) check() error {
	switch {
	case c.Primary == "":
		return config.Wrong("kvstore.multi.primary", "is empty, but rings or elected replicas are to be in two stores")
	case c.Secondary == "":
		return config.Wrong("kvstore.multi.secondary", "is empty, but rings or elected replicas are to be in two stores")
	case c.Primary == c.Secondary:
		return config.Wrong("kvstore.multi.secondary", "is the same as kvstore.multi.primary, %s", c.Primary)
	case c.MirrorTimeout < 0:
		return config.Wrong("kvstore.multi.mirror_timeout", "is %s; it must not be negative", config.FormatDuration(c.MirrorTimeout))
	}
	return nil
}

// toMulti adds the two stores, between which s switches.
func (c *MultiConfig) toMulti(to *kv.Config, s *storeSwitch) {
	t := &to.Multi
	t.Primary, t.Secondary = c.Primary, c.Secondary
	t.MirrorEnabled, t.MirrorTimeout = c.Mirror, c.MirrorTimeout
	t.ConfigProvider = s.client
}

// switchPeriod is how often it is looked whether another store counts now. The runtime files are read
// less often.
const switchPeriod = time.Second

// storeSwitch tells the clients of two stores what the runtime configuration says.
type storeSwitch struct {
	services.Service

	wanted  func() limits.StoreSwitch
	initial kv.MultiRuntimeConfig
	told    limits.StoreSwitch

	clients []chan kv.MultiRuntimeConfig // all are made before the service starts
}

// storeSwitch gives the one of this process.
func (a *App) storeSwitch() (*storeSwitch, error) {
	return a.p.storeSwitch.get(func() (*storeSwitch, error) {
		m := &a.cfg.KVStore.Multi
		s := newStoreSwitch(m, a.limits.Stores)
		return s, a.serve("store-switch", s)
	})
}

func newStoreSwitch(m *MultiConfig, wanted func() limits.StoreSwitch) *storeSwitch {
	s := &storeSwitch{wanted: wanted, initial: kv.MultiRuntimeConfig{PrimaryStore: m.Primary, Mirroring: &m.Mirror}}
	s.Service = services.NewTimerService(switchPeriod, s.look, s.look, nil)
	return s
}

// client returns where one more client is told.
func (s *storeSwitch) client() <-chan kv.MultiRuntimeConfig {
	c := make(chan kv.MultiRuntimeConfig, 1)
	s.clients = append(s.clients, c)
	return c
}

// look tells the clients if something else is wanted. What is not said any more is as configured again.
func (s *storeSwitch) look(context.Context) error {
	w := s.wanted()
	if w == s.told {
		return nil
	}
	s.told = w
	say := s.initial
	if w.Primary != "" {
		say.PrimaryStore = w.Primary
	}
	if w.MirrorGiven {
		say.Mirroring = &w.Mirror
	}
	for _, c := range s.clients {
		select {
		case <-c: // it was not taken yet, and is outdated
		default:
		}
		c <- say
	}
	return nil
}
