package control

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

func TestTheKeyOfAWorkspaceIsAppliedWhereThatIsTurnedOn(t *testing.T) {
	p := newPlane(t, Config{}, 1)
	const key = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
	id := p.want(p.call(0, "CreateWorkspace", "POST", "/workspaces", m{"kmsKeyArn": key}), 202, "").text("workspaceId")
	other := p.create(nil)
	look := func(cfg Config) *limits.Overrides {
		t.Helper()
		o := limits.NewOverrides(new(limits.Defaults), limits.RuntimeConfig{}, limits.Deps{})
		if err := NewLimits(cfg, p.docs, limits.Check, o.Overlay, slog.New(slog.DiscardHandler)).refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		return o
	}
	keyOf := func(o *limits.Overrides, id string) string {
		v := o.For(tenant.ID(id))
		return strings.TrimSpace(limits.S3SSEType.Of(v) + " " + limits.S3SSEKMSKeyID.Of(v))
	}
	if got := keyOf(look(Config{}), id); got != "" {
		t.Errorf("without the setting the key is %q", got)
	}
	o := look(Config{ApplyKeys: true})
	if got := keyOf(o, id); got != "SSE-KMS "+key {
		t.Errorf("the key is %q", got)
	}
	if got := keyOf(o, other); got != "" {
		t.Errorf("the key of another workspace is %q", got)
	}
	p.want(p.call(0, "DeleteWorkspace", "DELETE", "/workspaces/"+id, nil), 202, "")
	if got := keyOf(look(Config{ApplyKeys: true}), id); got != "SSE-KMS "+key {
		t.Errorf("what is still written for a deleted workspace has the key %q", got)
	}
}
