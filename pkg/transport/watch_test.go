package transport

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/telemetry/activity"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/ingesterpb"
	"github.com/amphora-metrics/amphora/pkg/wire/storepb"
)

// receiving is a stream whose only message is there.
type receiving struct {
	grpc.ServerStream
	ctx context.Context
}

func (s receiving) Context() context.Context { return s.ctx }
func (s receiving) RecvMsg(any) error        { return nil }

func TestReadsOfOtherProcessesAreToldWhileTheyRunAndWritesAreNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "activity")
	tracker := activity.Open(activity.Config{Path: path, Entries: 4}, activity.Deps{})
	t.Cleanup(func() { _ = tracker.Close() })
	told := func() string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[1024:])
	}
	w := watch{tracker}
	ctx := tenant.Inject(t.Context(), "team-a")
	ms := []*ingesterpb.Matcher{{Name: "__name__", Value: "up"}, {Type: ingesterpb.Matcher_NOT_REGEX, Name: "job", Value: `a"b`}}

	req := &storepb.SeriesRequest{MinTime: 0, MaxTime: 60_000, Matchers: ms, Blocks: [][]byte{{1}, {2}}}
	err := w.streamServer(nil, receiving{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: storepb.StoreGateway_Series_FullMethodName}, func(_ any, s grpc.ServerStream) error {
		if err := s.RecvMsg(req); err != nil {
			return err
		}
		want := "gRPC " + storepb.StoreGateway_Series_FullMethodName + ` tenant=team-a from=1970-01-01T00:00:00Z to=1970-01-01T00:01:00Z blocks=2 {__name__="up", job!~"a\"b"}`
		if got := told(); !strings.Contains(got, want) {
			t.Errorf("told of a stream: %q, want %q", strings.Trim(got, "\x00"), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.unaryServer(ctx, &ingesterpb.ExemplarsRequest{Matchers: []*ingesterpb.Matchers{{Matchers: ms[:1]}}}, &grpc.UnaryServerInfo{FullMethod: ingesterpb.IngesterQuery_Exemplars_FullMethodName},
		func(context.Context, any) (any, error) {
			if got := told(); !strings.Contains(got, `/Exemplars tenant=team-a from=`) || !strings.Contains(got, `{__name__="up"}`) {
				t.Errorf("told of a call: %q", strings.Trim(got, "\x00"))
			}
			return nil, nil
		})
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{ingesterpb.IngesterWrite_Push_FullMethodName, "/x.y/Z", ""} {
		if watched(method) {
			t.Errorf("%q is told of", method)
		}
	}
}
