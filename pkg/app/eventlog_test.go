package app

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

func TestWarningsOfATenantNameThePlaceItWantsThemIn(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(eventLog{next: slog.NewTextHandler(&out, nil), group: func(id string) string {
		if id == "ws-1" {
			return "group-1"
		}
		return ""
	}})
	said := func(f func()) string {
		out.Reset()
		f()
		return out.String()
	}
	const mark = "workspace=ws-1 log_group=group-1"
	mine := log.With("component", "ruler").With("tenant", tenant.ID("ws-1"), "x", 1).With("namespace", "n")
	if got := said(func() { mine.Warn("failed") }); !strings.Contains(got, mark) {
		t.Error(got)
	}
	if got := said(func() { log.Error("failed", "tenant", "ws-1") }); !strings.Contains(got, mark) {
		t.Error(got)
	}
	for _, f := range []func(){func() { mine.Info("fine") }, func() { log.Warn("failed", "tenant", "ws-2") }, func() { log.Warn("failed") }} {
		if got := said(f); got == "" || strings.Contains(got, "log_group") {
			t.Error(got)
		}
	}
}
