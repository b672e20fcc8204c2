package writer

import (
	"testing"

	_ "example.com/good/pkg/engine"
)

func TestNothing(t *testing.T) { _ = W{} }
