package errs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestWrapKeepsKind(t *testing.T) {
	e := fmt.Errorf("push series: %w", New(RateLimited, "tenant %s: %w", "t1", io.EOF))
	if KindOf(e) != RateLimited || HTTPStatus(e) != 429 || !errors.Is(e, io.EOF) {
		t.Fatalf("kind %v, status %d", KindOf(e), HTTPStatus(e))
	}
	if HTTPStatus(io.EOF) != 500 {
		t.Fatalf("unclassed error: status %d, want 500", HTTPStatus(io.EOF))
	}
}

func TestContextErrorsHaveKinds(t *testing.T) {
	if k := KindOf(fmt.Errorf("wait: %w", context.Canceled)); k != Canceled {
		t.Errorf("canceled: got %v", k)
	}
	if k := KindOf(context.DeadlineExceeded); k != Timeout {
		t.Errorf("deadline: got %v", k)
	}
}

func TestEveryKindHasARow(t *testing.T) {
	for _, k := range Kinds() {
		if k.String() == "" || k.HTTPStatus() == 0 || k.PrometheusType() == "" {
			t.Errorf("kind %d: incomplete row", k)
		}
	}
	if Kind(250).HTTPStatus() != 500 {
		t.Error("a kind outside the table must look Internal")
	}
}

func TestLimitNamesIDAndRemedy(t *testing.T) {
	e := Limit(Invalid, "max-series-per-user", "ingester.max-global-series-per-user", "max_global_series_per_user", "tenant %s has %d series", "a", 5)
	for _, want := range []string{"(err-amphora-max-series-per-user)", "-ingester.max-global-series-per-user", "max_global_series_per_user"} {
		if !strings.Contains(e.Error(), want) {
			t.Errorf("%q lacks %q", e, want)
		}
	}
}
