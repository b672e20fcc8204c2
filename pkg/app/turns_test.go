package app

import (
	"runtime"
	"testing"
)

func TestASingleProcessorHasAThreadForTheNetwork(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	for _, c := range []struct {
		env              string
		processors, want int
	}{{"", 1, 2}, {"1", 1, 1}, {"", 3, 3}} {
		t.Setenv("GOMAXPROCS", c.env)
		runtime.GOMAXPROCS(c.processors)
		if places := processors(); places != c.processors {
			t.Errorf("%d compute at a time on %d processors", places, c.processors)
		}
		if n := runtime.GOMAXPROCS(0); n != c.want {
			t.Errorf("with GOMAXPROCS=%q %d threads run Go on %d processors, want %d", c.env, n, c.processors, c.want)
		}
	}
}
