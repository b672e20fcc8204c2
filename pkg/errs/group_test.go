package errs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestAPanicOfAGroupIsThatOfWhoWaits(t *testing.T) {
	var asked context.Context
	work := func() error {
		outer, ctx := Together(t.Context())
		asked = ctx
		outer.Go(func() error {
			inner, ctx := Together(ctx)
			inner.SetLimit(1)
			inner.Go(func() error { <-ctx.Done(); return ctx.Err() })
			return inner.Wait()
		})
		outer.Go(func() error {
			inner, _ := Together(ctx)
			inner.Go(func() error {
				none := strings.Fields(" ")
				return errors.New(none[0])
			})
			return inner.Wait()
		})
		return outer.Wait()
	}
	defer func() {
		text := fmt.Sprint(recover())
		if !strings.Contains(text, "index out of range") || strings.Count(text, "goroutine ") < 1 || !strings.Contains(text, "group_test.go") {
			t.Errorf("panicked with %s", text)
		}
		if asked.Err() == nil {
			t.Error("the others go on")
		}
	}()
	t.Errorf("no panic: %v", work())
}

func TestAGroupReturnsItsFirstError(t *testing.T) {
	g, ctx := Together(t.Context())
	no := errors.New("no")
	g.Go(func() error { return no })
	g.Go(func() error { <-ctx.Done(); return ctx.Err() })
	if err := g.Wait(); !errors.Is(err, no) {
		t.Errorf("err = %v", err)
	}
}
