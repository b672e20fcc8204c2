package integration

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestAClusterThatWasDownAnswersTheWholeOrNothing ends all processes at once, with which the ring is
// forgotten, and starts some of them again.
func TestAClusterThatWasDownAnswersTheWholeOrNothing(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	var nodes []harness.Spec
	for _, zone := range []string{"a", "b", "c"} {
		nodes = append(nodes, harness.Spec{Name: "ingester-" + zone, Target: "ingester", Zone: zone},
			harness.Spec{Name: "ingester-" + zone + "2", Target: "ingester", Zone: zone})
	}
	nodes = append(nodes, harness.Spec{Name: "front", Target: "distributor,querier,store-gateway", Zone: "a"})
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Nodes: nodes, Flags: busyFlags()})
	front := c.Node("front")
	settled(ctx, t, c.Nodes(), "ingester-a", "ingester-b", "ingester-c", "ingester-a2", "ingester-b2", "ingester-c2")
	for i := range 50 {
		stored(t, pushV1(ctx, t, front.URL(""), "team-a", floats(time.Now(), float64(i), "__name__", "kept", "i", fmt.Sprint(i))))
	}
	for _, n := range c.Of("ingester") {
		eventually(ctx, t, n.Spec.Name+" to remember the ring", func() error {
			b, err := os.ReadFile(filepath.Join(n.DataDir, "ring.json"))
			if err == nil && strings.Count(string(b), `"state":"ACTIVE"`) != 6 {
				err = fmt.Errorf("it remembers %.1000s", b)
			}
			return err
		})
	}

	all(t, c.Nodes(), func(n *harness.Node) error { return n.Kill() })
	late := map[string]bool{"ingester-a2": true, "ingester-b2": true}
	for _, n := range c.Nodes() {
		if !late[n.Spec.Name] {
			must(t, n.Start())
		}
	}
	answer := func() (whole bool, err error) {
		r, err := try(ctx, http.MethodGet, front.URL("/prometheus/api/v1/query?"+url.Values{"query": {"count(kept)"}}.Encode()), nil, "X-Scope-OrgID", "team-a")
		switch {
		case err != nil || r.status == 503:
			return false, nil // refused
		case r.status == 200 && strings.Contains(r.body, `"50"`):
			return true, nil
		}
		return false, errors.New(r.String())
	}
	for begin := time.Now(); time.Since(begin) < 8*time.Second; {
		if whole, err := answer(); err != nil {
			t.Fatalf("a part is given for the whole: %v", err)
		} else if whole {
			t.Fatal("answered without two ingesters of different zones")
		}
		pause(ctx, t, 20*time.Millisecond)
	}
	must(t, c.WaitReady(ctx))
	for name := range late {
		must(t, c.Node(name).Start())
	}
	for begin := time.Now(); ; {
		whole, err := answer()
		if err != nil {
			t.Fatalf("a part is given for the whole: %v", err)
		}
		if whole {
			break
		}
		if time.Since(begin) > time.Minute {
			t.Fatal("no answer although all are back")
		}
		pause(ctx, t, 20*time.Millisecond)
	}
}
