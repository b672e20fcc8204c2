package tenant

import (
	"context"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func TestParseRefusesWhatCouldEscape(t *testing.T) {
	for _, bad := range []string{"", ".", "..", "a/b", "../x", "a\x00b", "a b", "a|b", "ü", strings.Repeat("x", 151), "__mimir_cluster"} {
		if _, err := Parse(bad); errs.KindOf(err) != errs.Invalid {
			t.Errorf("Parse(%q) = %v, want Invalid", bad, err)
		}
	}
	for _, good := range []string{"anonymous", "ws-1b2c", "team.a_(b)*!'", strings.Repeat("x", 150)} {
		if id, err := Parse(good); err != nil || string(id) != good {
			t.Errorf("Parse(%q) = %q, %v", good, id, err)
		}
	}
}

func TestContextCarriesTenants(t *testing.T) {
	if _, err := FromContext(context.Background()); errs.KindOf(err) != errs.Unauthenticated || err.Error() != "no org id" {
		t.Errorf("no tenant: %v", err)
	}
	ctx := InjectMany(context.Background(), []ID{"b", "a", "b"})
	if ids, err := Many(ctx); err != nil || len(ids) != 2 || ids[0] != "a" {
		t.Errorf("Many = %v, %v", ids, err)
	}
	if _, err := FromContext(ctx); errs.KindOf(err) != errs.Unprocessable {
		t.Errorf("two tenants where one is wanted: %v", err)
	}
}
