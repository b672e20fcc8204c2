package identity

import (
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
)

func TestAUserSessionHasTheRightsOfItsUserAndEndsWithItsKey(t *testing.T) {
	c := &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	one, other := withKey(t, example, c), withKey(t, example, c)
	ctx := t.Context()
	alice, err := one.Key(ctx, "AKIDALICE001", "")
	if err != nil {
		t.Fatal(err)
	}
	cred, err := one.UserSession(ctx, alice.Principal, 0, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if cred.Expires.Sub(c.at) != 12*time.Hour || !strings.HasPrefix(cred.AccessKey, "ASIA") {
		t.Errorf("%+v", cred)
	}
	k, err := other.Key(ctx, cred.AccessKey, cred.Token)
	if err != nil || k.Secret != cred.Secret || k.Principal.ARN != alice.Principal.ARN || k.Principal.AccessKey != cred.AccessKey || len(k.Principal.Policies) != len(alice.Principal.Policies) {
		t.Fatalf("on another replica: %+v, %v", k, err)
	}
	if alice.Principal.AccessKey != "AKIDALICE001" {
		t.Error("the session changed whom it comes from")
	}
	if _, err := one.UserSession(ctx, k.Principal, 0, time.Time{}); errs.KindOf(err) != errs.Denied {
		t.Errorf("a session makes a session: %v", err)
	}
	if _, err := one.UserSession(ctx, &iam.Principal{AccessKey: "tok-1"}, 0, time.Time{}); errs.KindOf(err) != errs.Denied {
		t.Errorf("a token makes a session: %v", err)
	}
	without := withKey(t, strings.ReplaceAll(example, "AKIDALICE001", "AKIDALICE009"), c)
	if _, err := without.Key(ctx, cred.AccessKey, cred.Token); errs.KindOf(err) != errs.Unauthenticated {
		t.Errorf("the key that it was made with is gone: %v", err)
	}
	c.at = c.at.Add(12 * time.Hour)
	if _, err := other.Key(ctx, cred.AccessKey, cred.Token); !IsExpired(err) {
		t.Errorf("after its end: %v", err)
	}
}

func TestARootSessionLastsAnHourAtMost(t *testing.T) {
	c := &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	x := withKey(t, "accounts: [{id: \"123456789012\", root_keys: [{id: AKIDROOT0001, secret: root-secret-root-secret}]}]", c)
	root, err := x.Key(t.Context(), "AKIDROOT0001", "")
	if err != nil {
		t.Fatal(err)
	}
	cred, err := x.UserSession(t.Context(), root.Principal, 5*time.Hour, time.Time{})
	if err != nil || cred.Expires.Sub(c.at) != time.Hour {
		t.Fatalf("%+v %v", cred, err)
	}
	if k, err := x.Key(t.Context(), cred.AccessKey, cred.Token); err != nil || !k.Principal.Root {
		t.Errorf("%+v %v", k, err)
	}
}
