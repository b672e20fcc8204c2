package ruler

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/amphora-metrics/amphora/pkg/docstore"
)

const madness = "no such document"

// madShelf has documents of a tenant that nobody can read.
type madShelf struct{ *shelf }

func (s madShelf) Get(ctx context.Context, key string) (docstore.Doc, error) {
	if strings.HasPrefix(key, tenantPrefix("mad")) {
		panic(madness)
	}
	return s.shelf.Get(ctx, key)
}

// TestAPanicOverTheRulesOfATenantIsOneOfThatTenant, when all rules are read and when those of the tenant are: it is counted,
// and the rules of others are evaluated.
func TestAPanicOverTheRulesOfATenantIsOneOfThatTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		r := w.ruler(t, "a", nil)
		stop := start(t, r)
		put(t, r, recording)
		if err := r.SetGroup(t.Context(), "mad", "ns", []byte(strings.Replace(recording, "answer", "other", 1))); err != nil {
			t.Fatal(err)
		}
		stop()

		r = w.ruler(t, "a", nil)
		r.deps.Documents = madShelf{w.docs}
		defer start(t, r)()
		before := len(w.store.times(t, "answer"))
		time.Sleep(time.Minute)
		if n := len(w.store.times(t, "answer")) - before; n < 5 {
			t.Errorf("%d samples in a minute, want one each 10 s", n)
		}
		failed := testutil.ToFloat64(r.metrics.readErrors)
		if failed == 0 || testutil.ToFloat64(r.metrics.reloadSuccessful.WithLabelValues("mad")) != 0 || testutil.ToFloat64(r.metrics.reloadSuccessful.WithLabelValues("t")) != 1 {
			t.Errorf("%g failures are counted, and not of the one tenant", failed)
		}
		r.changed <- "mad"
		synctest.Wait()
		if n := testutil.ToFloat64(r.metrics.readErrors); n != failed+1 {
			t.Errorf("%g failures are counted, want %g", n, failed+1)
		}
		if n := len(w.store.times(t, "other")); n > 0 {
			t.Errorf("%d samples of rules that cannot be read", n)
		}
	})
}
