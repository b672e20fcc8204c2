package frontend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/prometheus/prometheus/promql"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// called is a frontend as others call it.
type called struct{ s *Server }

func (c called) Running(ctx context.Context, in *querypb.RunningRequest, _ ...grpc.CallOption) (*querypb.RunningResponse, error) {
	return c.s.Running(ctx, in)
}

func (c called) Stop(ctx context.Context, in *querypb.StopRequest, _ ...grpc.CallOption) (*querypb.StopResponse, error) {
	return c.s.Stop(ctx, in)
}

// mute is a frontend that hangs.
type mute struct{}

func (mute) Running(ctx context.Context, _ *querypb.RunningRequest, _ ...grpc.CallOption) (*querypb.RunningResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (mute) Stop(ctx context.Context, _ *querypb.StopRequest, _ ...grpc.CallOption) (*querypb.StopResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// beside makes f one of several.
func beside(f *Frontend, others map[string]querypb.FrontendClient) {
	f.deps.Peers = Peers{Self: "one", Others: func() (out []Peer, err error) {
		for id := range others {
			out = append(out, Peer{ID: id, Addr: id})
		}
		return out, nil
	}, Client: func(addr string) (querypb.FrontendClient, error) {
		if others[addr] == nil {
			return nil, errs.New(errs.Unavailable, "refused")
		}
		return others[addr], nil
	}}
}

func acting(ctx context.Context, ids ...tenant.ID) (context.Context, Whose) {
	return tenant.InjectMany(ctx, ids), Whose{Tenants: ids}
}

func TestAnyFrontendListsAndStopsWhatAnotherRuns(t *testing.T) {
	one, two := started(t, Config{}, &queriers{}, limits.View{}), started(t, Config{}, &queriers{}, limits.View{})
	h := hung{make(chan struct{}, 2)}
	one.deps.Run, two.deps.Run = h, h
	beside(one, map[string]querypb.FrontendClient{"two": called{NewServer(two)}})
	a, whoseA := acting(t.Context(), "a")
	b, whoseB := acting(t.Context(), "b")
	ends := make(chan *promql.Result, 1)
	go instant(b, t, one, "mine")
	<-h.begun
	go func() { ends <- instant(a, t, two, "up") }()
	<-h.begun

	all, warnings := one.Running(t.Context(), Whose{All: true})
	if len(all) != 2 || len(warnings) != 0 || all[0].Query != "mine" || all[0].Frontend != "one" || all[1].Query != "up" || all[1].Frontend != "two" ||
		all[1].Tenants[0] != "a" || all[1].Class != "ad-hoc" || time.Since(all[1].Since) > time.Minute || all[0].ID == all[1].ID {
		t.Fatalf("under way: %+v, %v", all, warnings)
	}
	id := all[1].ID
	if list, _ := one.Running(b, whoseB); len(list) != 1 || list[0].Query != "mine" {
		t.Errorf("b sees %+v", list)
	}
	if err := one.Stop(b, whoseB, id); errs.KindOf(err) != errs.NotFound {
		t.Errorf("b stopped what a runs: %v", err)
	}
	if list, _ := one.Running(a, whoseA); len(list) != 1 || list[0].ID != id {
		t.Errorf("a sees %+v", list)
	}
	if err := one.Stop(a, whoseA, id); err != nil {
		t.Errorf("a does not stop it: %v", err)
	}
	if res := <-ends; errs.KindOf(res.Err) != errs.Unprocessable || !strings.Contains(res.Err.Error(), "stopped on request") {
		t.Errorf("it ended with %v", res.Err)
	}
	if err := one.Stop(a, whoseA, id); errs.KindOf(err) != errs.NotFound {
		t.Errorf("stopped twice: %v", err)
	}
	if err := one.Stop(t.Context(), Whose{All: true}, all[0].ID); err != nil {
		t.Errorf("an operator does not stop it: %v", err)
	}
}

func TestAFrontendThatHangsIsNamedAndTheOthersAreListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := started(t, Config{}, &queriers{}, limits.View{}), started(t, Config{}, &queriers{}, limits.View{})
		h := hung{make(chan struct{}, 1)}
		two.deps.Run = h
		beside(one, map[string]querypb.FrontendClient{"two": called{NewServer(two)}, "three": mute{}, "four": nil})
		ctx, whose := acting(t.Context(), "a")
		go instant(ctx, t, two, "up")
		<-h.begun
		begin := time.Now()
		list, warnings := one.Running(ctx, whose)
		told := fmt.Sprint(warnings)
		if took := time.Since(begin); took != peerWait || len(list) != 1 || list[0].Query != "up" || len(warnings) != 2 ||
			!strings.Contains(told, "query-frontend three did not answer") || !strings.Contains(told, "query-frontend four did not answer: refused") {
			t.Errorf("after %s: %+v, %s", took, list, told)
		}
		if err := one.Stop(ctx, whose, "none"); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "did not answer") {
			t.Errorf("what the others may have: %v", err)
		}
		begin = time.Now()
		if err := one.Stop(ctx, whose, list[0].ID); err != nil || time.Since(begin) != 0 {
			t.Errorf("stopped after %s: %v", time.Since(begin), err)
		}
		one.deps.Peers.Others = func() ([]Peer, error) { return nil, errors.New("no ring") }
		if list, warnings := one.Running(ctx, whose); len(list) != 0 || !strings.Contains(fmt.Sprint(warnings), "one asked no others: no ring") {
			t.Errorf("without a ring: %+v, %v", list, warnings)
		}
	})
}

func TestAListSaysWhatPartsTookAndIsBounded(t *testing.T) {
	f := started(t, Config{}, &queriers{}, limits.View{})
	q := &query{f: f}
	q.laid.Store(&run{works: 3, fetched: work.Fetched{Ingesters: 5, StoreGateways: 7}})
	for i := range mostListed + 1 {
		f.running.add(Running{Tenants: []tenant.ID{"a"}, Since: time.Unix(int64(i), 0), Query: strings.Repeat("x", mostListedText+i)}, q, nil)
	}
	list, _ := f.Running(t.Context(), Whose{Tenants: []tenant.ID{"a"}})
	if len(list) != mostListed || !list[0].Since.Equal(time.Unix(0, 0)) || len(list[0].Query) != mostListedText || len(list[9].Query) != mostListedText+3 {
		t.Fatalf("%d are listed", len(list))
	}
	if list[0].Parts != 3 || list[0].Fetched != 12 {
		t.Errorf("its parts took %+v", list[0])
	}
}

// late ends work as a call to another process ends: when the time is over, in the words of its protocol.
type late struct{ err error }

func (l late) Run(ctx context.Context, _ *work.Work) error {
	<-ctx.Done()
	return l.err
}

func TestATimeoutHasTheWordsOfTheEngineWhoeverNoticesIt(t *testing.T) {
	const words = "query timed out in expression evaluation"
	for _, c := range []struct {
		err  error
		kind errs.Kind
		text string
	}{
		{errs.New(errs.Timeout, "stream terminated by RST_STREAM with error code: CANCEL"), errs.Timeout, words},
		{errs.New(errs.Canceled, "stream terminated by RST_STREAM with error code: CANCEL"), errs.Timeout, words},
		{context.DeadlineExceeded, errs.Timeout, words},
		{errs.Wrap(errs.Timeout, promql.ErrQueryTimeout("query queue")), errs.Timeout, "query timed out in query queue"},
		{errs.New(errs.Unprocessable, "its own fault"), errs.Unprocessable, "its own fault"},
		{errs.New(errs.Unavailable, "away"), errs.Unavailable, "away"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := started(t, Config{}, &queriers{}, limits.View{})
			f.deps.Run = late{c.err}
			ctx, cancel := context.WithTimeout(tenant.Inject(t.Context(), "a"), time.Second)
			defer cancel()
			if err := instant(ctx, t, f, "up").Err; errs.KindOf(err) != c.kind || err.Error() != c.text {
				t.Errorf("%v became %s %v", c.err, errs.KindOf(err), err)
			}
			gone, leave := context.WithCancel(tenant.Inject(t.Context(), "a"))
			leave()
			if err := instant(gone, t, f, "up").Err; errs.KindOf(err) == errs.Timeout && errs.KindOf(c.err) != errs.Timeout {
				t.Errorf("a client that left got %v", err)
			}
		})
	}
}
