package alertmanager

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/nflog"
	"github.com/prometheus/alertmanager/silence"
	"github.com/prometheus/common/model"

	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// state is what the replicas of a tenant share.
type state struct {
	id       tenant.ID
	silences *silence.Silences
	notified *nflog.Log
	alerts   *alertStore

	mu      sync.Mutex // guards merging
	merging map[*byte]bool
}

// newState returns the state of a tenant of whom nothing is known, without alerts. o is for silences; the log
// of notifications has the same retention, logger and metrics.
func newState(id tenant.ID, o silence.Options) (*state, error) {
	s := &state{id: id, merging: map[*byte]bool{}}
	var err error
	if s.silences, err = silence.New(o); err != nil {
		return nil, fmt.Errorf("silences of tenant %s: %w", id, err)
	}
	if s.notified, err = nflog.New(nflog.Options{Retention: o.Retention, Logger: o.Logger, Metrics: o.Metrics}); err != nil {
		return nil, fmt.Errorf("log of notifications of tenant %s: %w", id, err)
	}
	return s, nil
}

// act returns ctx acting for the tenant.
func (s *state) act(ctx context.Context) context.Context { return tenant.Inject(ctx, s.id) }

// merge adds what another replica knows. Of two versions of one thing the newer one stays.
func (s *state) merge(ctx context.Context, in *pb.State) error {
	if err := s.mergePart(in.GetSilences(), s.silences.Merge); err != nil {
		return fmt.Errorf("merge silences: %w", err)
	}
	if err := s.mergePart(in.GetNotifications(), s.notified.Merge); err != nil {
		return fmt.Errorf("merge log of notifications: %w", err)
	}
	var told []*alert.Alert
	for _, a := range in.GetAlerts() {
		if x := fromWire(a); x.Validate() == nil {
			told = append(told, x)
		}
	}
	return s.alerts.merge(ctx, told...)
}

// mergePart merges data, and marks it, since upstream hands data that is new to it to the broadcast
// as it came in: passing it on again would only multiply messages.
func (s *state) mergePart(data []byte, merge func([]byte) error) error {
	if len(data) == 0 {
		return nil
	}
	s.mu.Lock()
	s.merging[&data[0]] = true
	s.mu.Unlock()
	err := merge(data)
	s.mu.Lock()
	delete(s.merging, &data[0])
	s.mu.Unlock()
	return err
}

// foreign says whether data is being merged, and so is not this replica's own news.
func (s *state) foreign(data []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(data) == 0 || s.merging[&data[0]]
}

// durable returns what the journal keeps: alerts are sent again by whoever sent them.
func (s *state) durable() (*pb.State, error) {
	sil, err := s.silences.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode silences: %w", err)
	}
	log, err := s.notified.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode log of notifications: %w", err)
	}
	return &pb.State{Silences: sil, Notifications: log}, nil
}

// full returns everything.
func (s *state) full() (*pb.State, error) {
	out, err := s.durable()
	if err != nil {
		return nil, err
	}
	it := s.alerts.GetPending()
	defer it.Close()
	for a := range it.Next() {
		out.Alerts = append(out.Alerts, toWire(a.Data))
	}
	return out, nil
}

func toWire(a *alert.Alert) *pb.Alert {
	out := &pb.Alert{Labels: map[string]string{}, Annotations: map[string]string{}, StartsAt: nanos(a.StartsAt), EndsAt: nanos(a.EndsAt),
		UpdatedAt: nanos(a.UpdatedAt), GeneratorUrl: a.GeneratorURL, Timeout: a.Timeout}
	for k, v := range a.Labels {
		out.Labels[string(k)] = string(v)
	}
	for k, v := range a.Annotations {
		out.Annotations[string(k)] = string(v)
	}
	return out
}

func fromWire(a *pb.Alert) *alert.Alert {
	out := &alert.Alert{Alert: model.Alert{Labels: labelSet(a.GetLabels()), Annotations: labelSet(a.GetAnnotations()), StartsAt: at(a.GetStartsAt()),
		EndsAt: at(a.GetEndsAt()), GeneratorURL: a.GetGeneratorUrl()}, UpdatedAt: at(a.GetUpdatedAt()), Timeout: a.GetTimeout()}
	return out
}

func labelSet(m map[string]string) model.LabelSet {
	out := make(model.LabelSet, len(m))
	for k, v := range m {
		out[model.LabelName(k)] = model.LabelValue(v)
	}
	return out
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func at(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
