package ingest

import (
	"context"
	"testing"

	"github.com/klauspost/compress/s2"

	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// skips is a distributor that remembers which checks the last push wanted left out.
type skips struct{ names, count bool }

func (s *skips) Push(_ context.Context, _ tenant.ID, req *remotewrite.Request) (remotewrite.Written, error) {
	s.names, s.count = req.SkipLabelNames, req.SkipLabelCount
	return remotewrite.Written{}, nil
}

func TestHeadersLeaveOutChecksOnlyIfTheOperatorAllowsThat(t *testing.T) {
	const names, count = "X-Mimir-SkipLabelNameValidation", "X-Mimir-SkipLabelCountValidation"
	for _, c := range []struct {
		allowNames, allowCount bool
		headers                []string
		want                   skips
	}{
		{false, false, []string{names, "true", count, "true"}, skips{}},
		{true, false, []string{names, "true", count, "true"}, skips{true, false}},
		{false, true, []string{names, "true", count, "true"}, skips{false, true}},
		{true, true, []string{names, "True", count, "false"}, skips{true, false}},
		{true, true, []string{names, "1", count, "yes"}, skips{}},
		{true, true, nil, skips{}},
	} {
		s := &skips{}
		a := newAPI(s)
		a.cfg.SkipLabelNames, a.cfg.SkipLabelCount = c.allowNames, c.allowCount
		if rec := do(a, request(s2.EncodeSnappy(nil, []byte("x")), c.headers...)); rec.Code != 200 || *s != c.want {
			t.Errorf("%+v: %d, left out %+v", c, rec.Code, *s)
		}
	}
}
