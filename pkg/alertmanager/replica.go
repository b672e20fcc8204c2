package alertmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/alertmanager/nflog"
	"github.com/prometheus/alertmanager/nflog/nflogpb"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// HandleRequest implements alertmanagerpb.AlertmanagerServer.
func (m *Alertmanager) HandleRequest(ctx context.Context, req *pb.Request) (*pb.Response, error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	in, err := m.instance(ctx, id)
	if err != nil {
		return nil, err
	}
	u, err := url.ParseRequestURI(req.GetUri())
	if err != nil {
		return nil, errs.New(errs.Invalid, "request address: %w", err)
	}
	switch u.Path {
	case decisionsPath:
		return in.decided(u.Query()["filter"])
	case GrafanaReceiversPath:
		return in.receiverStatuses()
	case GrafanaFullStatePath:
		return in.fullState()
	}
	r, err := http.NewRequestWithContext(ctx, req.GetMethod(), u.String(), bytes.NewReader(req.GetBody()))
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	for _, h := range req.GetHeaders() {
		r.Header[h.GetName()] = h.GetValues()
	}
	handler, err := in.handlerOfAPI()
	if err != nil {
		return nil, err
	}
	w := &recorder{header: http.Header{}}
	handler.ServeHTTP(w, r)
	out := w.response()
	if req.GetMethod() == http.MethodGet || !strings.Contains(u.Path, "/silence") || out.GetStatus() >= 300 {
		return out, nil
	}
	in.soon()
	if err := in.agreed(ctx); err != nil {
		in.takeBack(ctx, req, out)
		return nil, err
	}
	return out, nil
}

// takeBack ends a silence that was made by req and is not known to enough replicas: its maker is told that
// there is none, and makes another one, maybe at the next replica, and would not know of this one.
func (in *instance) takeBack(ctx context.Context, req *pb.Request, made *pb.Response) {
	var asked struct{ ID string }
	var got struct{ SilenceID string }
	if json.Unmarshal(req.GetBody(), &asked) != nil || asked.ID != "" || json.Unmarshal(made.GetBody(), &got) != nil || got.SilenceID == "" {
		return // it was changed, or deleted
	}
	ctx = context.WithoutCancel(ctx)
	_ = pause(ctx, time.Millisecond) // of two versions the younger one counts, and clocks may be coarse
	if err := in.silences.Expire(ctx, got.SilenceID); err != nil {
		in.log.Warn("a silence that too few replicas know stays in force", "silence", got.SilenceID, "err", err)
	}
}

// agreed returns once a silence that was changed here is known to a quorum of replicas, and on the disk of
// each of them.
func (in *instance) agreed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*peerCall)
	defer cancel()
	r, err := in.m.deps.Replicas(in.id)
	if err != nil {
		return errs.Wrap(errs.Unavailable, err)
	}
	if err := in.disk.wait(ctx); err != nil {
		return err
	}
	n, err := in.repl.flush(ctx)
	if err == nil && n+1 >= r.Quorum {
		return nil
	}
	return errs.New(errs.Unavailable, "the silence is known to %d replicas, and %d must know it; ask again", n+1, r.Quorum)
}

// UpdateState implements alertmanagerpb.AlertmanagerServer.
func (m *Alertmanager) UpdateState(ctx context.Context, s *pb.State) (*pb.UpdateStateResponse, error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	in, err := m.instance(ctx, id)
	if err != nil {
		return nil, err
	}
	m.metrics.merges.WithLabelValues("state").Inc()
	if err := in.merge(ctx, s); err != nil {
		m.metrics.mergeFailures.WithLabelValues("state").Inc()
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if err := in.keep(ctx, s); err != nil {
		return nil, err
	}
	return &pb.UpdateStateResponse{}, nil
}

// keep returns once what another replica told is on disk.
func (in *instance) keep(ctx context.Context, s *pb.State) error {
	in.disk.add(journalSilences, s.GetSilences())
	in.disk.add(journalNotifications, s.GetNotifications())
	return in.disk.wait(ctx)
}

// ReadState implements alertmanagerpb.AlertmanagerServer.
func (m *Alertmanager) ReadState(ctx context.Context, _ *pb.ReadStateRequest) (*pb.State, error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	r, err := m.deps.Replicas(id)
	if err != nil {
		return nil, errs.Wrap(errs.Unavailable, err)
	}
	m.mu.Lock()
	in, begun := m.instances[id], m.begun
	m.mu.Unlock()
	if !begun {
		return nil, errs.New(errs.Unavailable, "the alertmanager is starting")
	}
	if in == nil && m.journal.has(id) { // the other one counts on what this one knows
		if in, err = m.instance(ctx, id); err != nil {
			return nil, err
		}
	}
	settled := in != nil && in.isSettled()
	if !settled && (in == nil || !in.recalled) {
		return &pb.State{Replicas: r.Addrs}, nil
	}
	s, err := in.full()
	if err != nil {
		return nil, err
	}
	s.Settled, s.Replicas = settled, r.Addrs
	return s, nil
}

// Claim implements alertmanagerpb.AlertmanagerServer.
func (m *Alertmanager) Claim(ctx context.Context, req *pb.ClaimRequest) (*pb.ClaimResponse, error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(req.GetKey(), string(id)+"/") {
		return nil, errs.New(errs.Invalid, "the claim is not of tenant %s", id)
	}
	if req.GetRelease() {
		m.claims.release(req.GetKey(), req.GetHolder())
		return &pb.ClaimResponse{}, nil
	}
	ttl := min(time.Duration(req.GetTtlMs())*time.Millisecond, m.claimTTL())
	holder, unfinished := m.claims.take(req.GetKey(), req.GetHolder(), req.GetNotification(), ttl, time.Now())
	out := &pb.ClaimResponse{Granted: holder == req.GetHolder(), Holder: holder, Unfinished: unfinished}
	m.mu.Lock()
	in := m.instances[id]
	m.mu.Unlock()
	if in == nil || !out.GetGranted() || req.GetGroup() == "" {
		return out, nil
	}
	out.Alerts = in.newer(req.GetAlerts())
	out.Notification, err = in.logged(req)
	return out, err
}

// newer returns what this replica has of alerts that is newer and says otherwise.
func (in *instance) newer(known []*pb.Known) []*pb.Alert {
	var out []*pb.Alert
	for _, k := range known {
		a, err := in.alerts.Get(model.Fingerprint(k.GetFingerprint()))
		if err == nil && nanos(a.UpdatedAt) > k.GetUpdatedAt() && a.Resolved() != k.GetResolved() {
			out = append(out, toWire(a))
		}
	}
	return out
}

// logged is what this replica knows of the last notification that a claim is for; empty: nothing.
func (in *instance) logged(req *pb.ClaimRequest) ([]byte, error) {
	entries, err := in.notified.Query(nflog.QGroupKey(req.GetGroup()),
		nflog.QReceiver(&nflogpb.Receiver{GroupName: req.GetReceiver(), Integration: req.GetIntegration(), Idx: req.GetIndex()}))
	if errors.Is(err, nflog.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, e := range entries {
		expires := timestamppb.New(e.GetTimestamp().AsTime().Add(in.m.cfg.Retention))
		if _, err := protodelim.MarshalTo(&out, &nflogpb.MeshEntry{Entry: e, ExpiresAt: expires}); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// Reload implements alertmanagerpb.AlertmanagerServer.
func (m *Alertmanager) Reload(ctx context.Context, _ *pb.ReloadRequest) (*pb.ReloadResponse, error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.changed(ctx, id); err != nil {
		return nil, err
	}
	return &pb.ReloadResponse{}, nil
}

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (w *recorder) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *recorder) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

func (w *recorder) response() *pb.Response {
	out := &pb.Response{Status: int32(w.status), Body: w.body.Bytes()} //nolint:gosec // A status has three digits.
	if w.status == 0 {
		out.Status = http.StatusOK
	}
	for name, values := range w.header {
		out.Headers = append(out.Headers, &pb.Header{Name: name, Values: values})
	}
	return out
}
