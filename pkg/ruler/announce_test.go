package ruler

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// told is a ruler that notes what it is told.
type told struct {
	rulerpb.RulerClient
	note func(context.Context) error
}

func (c told) Changed(ctx context.Context, _ *rulerpb.ChangedRequest, _ ...grpc.CallOption) (*rulerpb.ChangedResponse, error) {
	return &rulerpb.ChangedResponse{}, c.note(ctx)
}

func TestRulesMayBeEncodedTwice(t *testing.T) {
	const text = "groups:\n- name: g\n  rules:\n  - record: a\n    expr: b\n"
	for _, data := range []string{text, base64.StdEncoding.EncodeToString([]byte(text)), base64.StdEncoding.EncodeToString([]byte(text)) + "\n"} {
		d, err := parseDocument([]byte(data))
		if err != nil || len(d.groups) != 1 || d.groups[0].Name != "g" {
			t.Errorf("%q: %v", data, err)
		}
	}
	if _, err := parseDocument([]byte("bm90aGluZw==")); err == nil {
		t.Error("what is no mapping in base64 is taken for rules")
	}
}

func TestAProcessWithoutRulerTellsAllRulersOfChangedRules(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]tenant.ID{}
	a := &Announcer{Logger: slog.New(slog.DiscardHandler), Limits: limits.NewOverrides(&limits.Defaults{}, limits.RuntimeConfig{}, limits.Deps{}).For, Cluster: Cluster{
		Alive: func() ([]Member, error) { return []Member{{"a", "1"}, {"b", "2"}, {"c", "3"}}, nil },
		Client: func(addr string) (rulerpb.RulerClient, error) {
			return told{note: func(ctx context.Context) error {
				id, err := tenant.FromContext(ctx)
				mu.Lock()
				defer mu.Unlock()
				seen[addr] = id
				if addr == "2" {
					return errors.New("gone")
				}
				return err
			}}, nil
		},
	}}
	a.Announce(t.Context(), "t")
	if len(seen) != 3 || seen["1"] != "t" || seen["3"] != "t" {
		t.Errorf("told %v", seen)
	}
	a.Cluster.Alive = func() ([]Member, error) { return nil, errors.New("nobody") }
	a.Announce(t.Context(), "t") // it does not fail
}
