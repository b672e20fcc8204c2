package app

import "github.com/amphora-metrics/amphora/pkg/continuoustest"

// buildContinuousTest builds the test of a cluster, which may be the one this process belongs to.
func (a *App) buildContinuousTest() error {
	by, err := a.inner("continuous-test")
	if err != nil {
		return err
	}
	t, err := continuoustest.New(a.cfg.ContinuousTest, continuoustest.Deps{Log: a.log, Reg: a.reg, Transport: by, Done: func() { close(a.done) }})
	if err != nil {
		return err
	}
	return a.serve(continuousTest, t)
}

// continuousTest is the target of the test.
const continuousTest = "continuous-test"

// stranger says whether this process only tests a cluster: it is no member of it.
func (c *Config) stranger() bool {
	ts, err := resolve(c.Target)
	return err == nil && len(ts) == 1 && ts[0].name == continuousTest && !c.hasGateway()
}
