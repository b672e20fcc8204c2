package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestTheDeathOfAllAlertmanagersAtOnceLosesNothing kills all alertmanagers in the moment in which a silence
// is acknowledged, and finds it in force after they have started again, and nothing notified twice.
func TestTheDeathOfAllAlertmanagersAtOnceLosesNothing(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 3*time.Minute)
	c := threeAlertmanagers(ctx, t)
	hook := newReceiver(t)
	n := c.Nodes()
	if r := call(ctx, t, http.MethodPost, n[0].URL("/api/v1/alerts"), definitionFor(webhook(hook.url)), "X-Scope-OrgID", "one"); r.status != http.StatusCreated {
		t.Fatal(r)
	}
	names := []string{"known"}
	send := func(more ...string) {
		t.Helper()
		names = append(names, more...)
		must(t, harness.Poll(ctx, func(ctx context.Context) error {
			return fire(ctx, n[1].URL(""), "one", time.Now().Add(time.Hour), names...)
		}))
	}
	send()
	hook.once(ctx, t, "known")
	for round := range 2 {
		pause(ctx, t, 2*time.Second) // its sender has written down that it was notified
		quiet, loud := fmt.Sprintf("quiet-%d", round), fmt.Sprintf("loud-%d", round)
		body, err := json.Marshal(map[string]any{"matchers": []any{map[string]any{"name": "alertname", "value": quiet, "isRegex": false}},
			"startsAt": time.Now().Add(-time.Second), "endsAt": time.Now().Add(time.Hour), "createdBy": "test", "comment": quiet})
		must(t, err)
		var made reply
		must(t, harness.Poll(ctx, func(ctx context.Context) error {
			r, err := try(ctx, http.MethodPost, n[round].URL("/alertmanager/api/v2/silences"), body, "X-Scope-OrgID", "one", "Content-Type", "application/json")
			if err == nil && r.status != http.StatusOK {
				err = errors.New(r.String())
			}
			made = r
			return err
		}))
		var dead sync.WaitGroup
		problems := make([]error, len(n))
		for i, x := range n {
			dead.Go(func() { problems[i] = x.Kill() })
		}
		dead.Wait()
		must(t, errors.Join(problems...))
		for _, x := range n {
			must(t, x.Start())
		}
		for _, x := range n {
			must(t, x.WaitReady(ctx))
		}
		send(quiet, loud)
		hook.once(ctx, t, loud)
		var silence struct{ SilenceID string }
		must(t, json.Unmarshal([]byte(made.body), &silence))
		for _, x := range n {
			must(t, harness.Poll(ctx, func(ctx context.Context) error {
				r, err := try(ctx, http.MethodGet, x.URL("/alertmanager/api/v2/silence/"+silence.SilenceID), nil, "X-Scope-OrgID", "one")
				if err == nil && !strings.Contains(r.body, `"state":"active"`) {
					err = errors.New(r.String())
				}
				return err
			}))
		}
	}
	pause(ctx, t, 5*time.Second) // groups of all replicas flush several times
	hook.never(t, 1, "quiet-0", "quiet-1")
	hook.never(t, 2, "known", "loud-0", "loud-1")
}
