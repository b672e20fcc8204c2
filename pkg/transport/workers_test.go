package transport

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"google.golang.org/grpc"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/wire/querypb"
	"github.com/amphora-metrics/amphora/pkg/wire/work"
)

// assigner gives the worker that comes first one piece of work after the other, and keeps what it says of each.
type assigner struct {
	querypb.UnimplementedSchedulerServer
	texts []string
	said  chan []*querypb.FromWorker
}

func (a *assigner) Pull(s grpc.BidiStreamingServer[querypb.FromWorker, querypb.Assignment]) error {
	if _, err := s.Recv(); err != nil { // hello
		return err
	}
	for len(a.texts) > 0 {
		text := a.texts[0]
		a.texts = a.texts[1:]
		if err := s.Send(&querypb.Assignment{Tenants: "t", Work: &querypb.Work{Query: &querypb.Query{Text: text, Packed: true}}}); err != nil {
			return err
		}
		var all []*querypb.FromWorker
		for len(all) == 0 || !all[len(all)-1].Done {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			all = append(all, m)
		}
		a.said <- all
	}
	<-s.Context().Done()
	return nil
}

// runner is work.Runner by a function.
type runner func(w *work.Work) error

func (f runner) Run(_ context.Context, w *work.Work) error { return f(w) }

// TestTheLastPartOfAnAnswerEndsIt: what fits into one message takes one, and of a longer one the last part says so.
func TestTheLastPartOfAnAnswerEndsIt(t *testing.T) {
	noLeaks(t)
	texts := []string{"small", "large", "wrong", "breaks", "silent", "small"}
	a := &assigner{texts: slices.Clone(texts), said: make(chan []*querypb.FromWorker)}
	only := make(chan struct{}, 1) // so that one worker has all of it
	only <- struct{}{}
	s, _ := startServer(t, Config{}, func(s *Server) {
		querypb.RegisterSchedulerServer(s.GRPC(), &oneWorker{assigner: a, only: only})
	})
	vector := func(n int) promql.Vector {
		out := make(promql.Vector, n)
		for i := range out {
			out[i] = promql.Sample{Metric: labels.FromStrings("name", "of a series that is one of many"), T: 1, F: 2}
		}
		return out
	}
	w, err := NewWorkers(ClientConfig{}, WorkersDeps{
		ClientDeps: ClientDeps{Registerer: prometheus.NewRegistry(), Log: quiet()}, Querier: "q", Most: 1,
		Addresses: func() []string { return []string{s.GRPCAddr().String()} },
		Run: runner(func(w *work.Work) error {
			switch w.Query.Text {
			case "wrong":
				return errs.New(errs.Invalid, "the query is wrong")
			case "breaks":
				return errors.Join(w.Parts(&querypb.Part{Head: &querypb.Head{}}), errs.New(errs.Unavailable, "no more of it"))
			case "silent":
				return nil
			case "large":
				return w.Answer(work.NewResult(vector(20_000), nil, nil))
			}
			return w.Answer(work.NewResult(vector(3), nil, nil))
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	startService(t, w)
	for _, text := range texts {
		all := <-a.said
		last := all[len(all)-1]
		switch text {
		case "small":
			if len(all) != 1 || last.Part.GetPackedSeries() != 3 || last.Error != nil {
				t.Errorf("a small answer is told as %v", all)
			}
		case "large":
			var series uint32
			for _, m := range all {
				series += m.Part.GetPackedSeries()
			}
			if len(all) < 2 || series != 20_000 || last.Part == nil || last.Error != nil {
				t.Errorf("a large answer is told in %d messages with %d series, the last with %v", len(all), series, last.Error)
			}
		case "wrong":
			if len(all) != 1 || last.Part != nil || last.Error.GetText() != "the query is wrong" || errs.Kind(last.Error.GetKind()) != errs.Invalid {
				t.Errorf("an error is told as %v", all)
			}
		case "breaks":
			if len(all) != 2 || all[0].Part == nil || last.Part != nil || last.Error.GetText() != "no more of it" {
				t.Errorf("an answer that breaks off is told as %v", all)
			}
		case "silent":
			if len(all) != 1 || last.Part != nil || last.Error != nil {
				t.Errorf("the end of an answer without parts is told as %v", all)
			}
		}
	}
}

// oneWorker has work for one worker; the others wait.
type oneWorker struct {
	*assigner
	only chan struct{}
}

func (o *oneWorker) Pull(s grpc.BidiStreamingServer[querypb.FromWorker, querypb.Assignment]) error {
	select {
	case <-o.only:
		return o.assigner.Pull(s)
	case <-s.Context().Done():
		return nil
	}
}
