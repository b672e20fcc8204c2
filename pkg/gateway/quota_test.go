package gateway

import (
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func TestAnAllowanceIsThatOfAccountAndKindOfCall(t *testing.T) {
	if NewAllowance(&Config{WorkspaceRate: 1}) != nil {
		t.Error("there is an allowance where nobody asks who calls")
	}
	a := NewAllowance(&Config{Enabled: true, WorkspaceRate: 1e-9, AlertmanagerRate: 0})
	for n := range 4 { // two at once, as a gateway before may let through what then comes together
		err := a.Take("1", "aps:ListWorkspaces")
		if n < 2 && err != nil || n >= 2 && errs.KindOf(err) != errs.RateLimited {
			t.Errorf("call %d: %v", n, err)
		}
	}
	if err := a.Take("2", "aps:CreateScraper"); err != nil {
		t.Errorf("another account: %v", err)
	}
	for range 100 {
		if err := a.Take("1", "aps:PutAlertManagerDefinition"); err != nil {
			t.Fatalf("a kind without limit: %v", err)
		}
	}
}
