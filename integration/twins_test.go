package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/grafana/dskit/ring"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// TestIngestersWithTheSameTokensComeToDiffer starts ingesters with copies of the tokens of others, as
// machines that were cloned have them: one that wins them by its name and one that loses, and one of
// another zone. They agree on who has which, and neither writers nor readers notice.
func TestIngestersWithTheSameTokensComeToDiffer(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	c, j, end := scaled(ctx, t)
	pause(ctx, t, 2*time.Second)
	clone := func(name, zone, of string) {
		data := c.Node(of).DataDir
		tokens, err := os.ReadFile(filepath.Join(data, "tokens"))
		must(t, err)
		dir := filepath.Join(filepath.Dir(filepath.Dir(data)), name, "data")
		must(t, os.MkdirAll(dir, 0o750))
		must(t, os.WriteFile(filepath.Join(dir, "tokens"), tokens, 0o600))
		_, err = c.Add(harness.Spec{Name: name, Target: "ingester", Zone: zone})
		must(t, err)
	}
	clone("ingester-0", "a", "ingester-a")
	clone("ingester-z", "c", "ingester-c")
	clone("ingester-y", "c", "ingester-b")
	must(t, c.WaitReady(ctx))
	everybody := []string{"ingester-a", "ingester-b", "ingester-c", "ingester-0", "ingester-y", "ingester-z"}
	settled(ctx, t, c.Nodes(), everybody...)
	tokensDiffer(ctx, t, c.Nodes()[0])
	pause(ctx, t, 3*time.Second)
	gap := j.gap()
	end().good(t)
	acked, given := j.count()
	t.Logf("%d samples acknowledged, %d given up, longest gap %s", acked, given, gap)
	if given > 0 {
		t.Errorf("%d samples were given up", given)
	}
	for _, q := range c.Of("querier") {
		j.verify(ctx, t, q.URL(""))
	}
}

// TestTwinsThatStartTogetherComeToDiffer starts ingesters with one file of tokens, which nobody has yet, at once: none
// sees another in the ring when it looks. All but one choose others, and neither writers nor readers notice.
func TestTwinsThatStartTogetherComeToDiffer(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	c, j, end := scaled(ctx, t)
	pause(ctx, t, 2*time.Second)
	tokens, err := ring.LoadTokensFromFile(filepath.Join(c.Node("ingester-a").DataDir, "tokens"))
	must(t, err)
	for i := range tokens {
		tokens[i]++
	}
	twins := map[string]string{"ingester-0": "a", "ingester-1": "a", "ingester-2": "a", "ingester-y": "c", "ingester-z": "c"}
	everybody := []string{"ingester-a", "ingester-b", "ingester-c"}
	for name := range twins {
		dir := filepath.Join(filepath.Dir(filepath.Dir(c.Node("ingester-a").DataDir)), name, "data")
		must(t, os.MkdirAll(dir, 0o750))
		must(t, tokens.StoreToFile(filepath.Join(dir, "tokens")))
		everybody = append(everybody, name)
	}
	for name, zone := range twins {
		_, err = c.Add(harness.Spec{Name: name, Target: "ingester", Zone: zone})
		must(t, err)
	}
	must(t, c.WaitReady(ctx))
	settled(ctx, t, c.Nodes(), everybody...)
	for _, n := range c.Nodes() {
		tokensDiffer(ctx, t, n)
	}
	pause(ctx, t, 3*time.Second)
	replaced := 0.0
	for name := range twins {
		n := c.Node(name)
		replaced += scrape(ctx, t, n.URL("/metrics"), "amphora_ring_tokens_replaced_total")
		kept, err := ring.LoadTokensFromFile(filepath.Join(n.DataDir, "tokens"))
		must(t, err)
		if len(kept) != len(tokens) {
			t.Errorf("%s keeps %d tokens, want %d", name, len(kept), len(tokens))
		}
	}
	gap := j.gap()
	end().good(t)
	acked, given := j.count()
	t.Logf("%g tokens were replaced; %d samples acknowledged, %d given up, longest gap %s", replaced, acked, given, gap)
	if given > 0 {
		t.Errorf("%d samples were given up", given)
	}
	for _, q := range c.Of("querier") {
		j.verify(ctx, t, q.URL(""))
	}
}

// tokensDiffer waits until n sees each member with tokens that are its own alone.
func tokensDiffer(ctx context.Context, t *testing.T, n *harness.Node) {
	t.Helper()
	within(ctx, t, "each token to be of one ingester", func() error {
		members, err := ringOf(ctx, n.URL("/ingester/ring"))
		if err != nil {
			return err
		}
		owner := map[uint32]string{}
		for id, m := range members {
			if len(m.Tokens) == 0 {
				return fmt.Errorf("%s has no tokens", id)
			}
			for _, token := range m.Tokens {
				if was := owner[token]; was != "" {
					return fmt.Errorf("token %d is of %s and %s", token, was, id)
				}
				owner[token] = id
			}
		}
		return nil
	})
}
