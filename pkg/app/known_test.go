package app

import (
	"context"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// TestWhoIsKnown: overrides and active workspaces are known, strangers cost one look in a while, and a
// bucket that is away makes nobody unknown who was known.
func TestWhoIsKnown(t *testing.T) {
	now, looks, away := time.Unix(1_000_000, 0), 0, false
	states := map[string]string{"ws-active": "ACTIVE", "ws-gone": "DELETED"}
	k := &known{
		has: func(id tenant.ID) bool { return id == "in-overrides" }, own: "anonymous", now: func() time.Time { return now }, seen: map[tenant.ID]sighting{},
		lookup: func(_ context.Context, id string) (string, map[string]string, string, error) {
			looks++
			if away {
				return "", nil, "", errs.New(errs.Unavailable, "bucket is away")
			}
			if s, ok := states[id]; ok {
				return "123456789012", nil, s, nil
			}
			return "", nil, "", errs.New(errs.NotFound, "workspace %s is not registered", id)
		},
	}
	ask := func(id tenant.ID, want bool, wantLooks int) {
		t.Helper()
		looks = 0
		got, err := k.is(t.Context(), id)
		if err != nil || got != want || looks != wantLooks {
			t.Errorf("%s: known %v (%v) after %d looks, want %v after %d", id, got, err, looks, want, wantLooks)
		}
	}
	ask("in-overrides", true, 0)
	ask("anonymous", true, 0)
	ask("ws-active", true, 1)
	ask("ws-active", true, 0)
	ask("ws-gone", false, 1)
	ask("stranger", false, 1)
	ask("stranger", false, 0)
	states["stranger"], now = "ACTIVE", now.Add(knownAge)
	ask("stranger", true, 1)
	away, now = true, now.Add(time.Hour)
	ask("ws-active", true, 1)
	for _, id := range []tenant.ID{"ws-gone", "never-seen"} {
		if _, err := k.is(t.Context(), id); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("%s, while nobody can say: %v, want Unavailable", id, err)
		}
	}
}
