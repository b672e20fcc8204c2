package distributor

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/frame"
)

// TestOnlyKnownTenantsAreWritten: unknown ones are refused and leave nothing behind, named by the sender or
// by a label; what rules record is taken; and what cannot be found out is to be sent again.
func TestOnlyKnownTenantsAreWritten(t *testing.T) {
	c := splitCluster(t, false)
	away := false
	c.cfg.KnownTenantsOnly = true
	c.deps.Known = func(_ context.Context, id tenant.ID) (bool, error) {
		if away {
			return false, errs.New(errs.Internal, "no bucket")
		}
		return id == "t1" || id == "team-a", nil
	}
	one := func(team string) error {
		_, err := c.push(c.v1(c.series("up,team=" + team)))
		return err
	}
	if err := one("team-a"); err != nil {
		t.Error(err)
	}
	if err := one("team-b"); errs.KindOf(err) != errs.Denied || !strings.Contains(err.Error(), "team-b") {
		t.Errorf("by a label: %v, want Denied that names the tenant", err)
	}
	_, err := c.Push(t.Context(), "t2", c.v1(c.series("up")))
	if errs.KindOf(err) != errs.Denied || !strings.Contains(err.Error(), "(err-amphora-unknown-tenant)") {
		t.Errorf("an unknown tenant: %v, want Denied", err)
	}
	if n := c.metric("amphora_distributor_instance_rejected_requests_total", "distributor_unknown_tenant"); n != 2 {
		t.Errorf("%g counted, want 2", n)
	}
	if n := c.metric("amphora_distributor_requests_in_total", "t2") + c.metric("amphora_distributor_requests_in_total", "team-b"); n != 0 {
		t.Error("something is remembered of tenants that nobody knows")
	}
	if _, err := c.PushFrom(t.Context(), "t3", frame.Rule, c.v1(c.series("recorded"))); err != nil {
		t.Errorf("a rule: %v", err)
	}
	if got, want := c.storedSeries(), []string{`t3 {__name__="recorded"}`, `team-a {__name__="up", team="team-a"}`}; !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
	away = true
	if err := one("team-a"); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("nobody can say: %v, want Unavailable", err)
	}
}
