package alertmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-openapi/strfmt"
	"github.com/prometheus/alertmanager/api/v2/models"
	"github.com/prometheus/prometheus/notifier"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// frontCall bounds one call of a request to one replica.
const frontCall = 10 * time.Second

// Serve answers a request to the API of the tenant in its context, whose path below the tenant's
// prefix is path, from a quorum of the tenant's replicas.
func (m *Alertmanager) Serve(w http.ResponseWriter, r *http.Request, path string) error {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return err
	}
	req, err := m.receive(w, r, path)
	if err != nil {
		return err
	}
	out, err := m.ask(r.Context(), id, req, path)
	if err != nil {
		return err
	}
	for _, h := range out.GetHeaders() {
		if h.GetName() != "Content-Length" {
			w.Header()[h.GetName()] = h.GetValues()
		}
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(int(out.GetStatus()))
	_, _ = w.Write(out.GetBody()) // the client is gone if this fails
	return nil
}

// receive reads a request into a message.
func (m *Alertmanager) receive(w http.ResponseWriter, r *http.Request, path string) (*pb.Request, error) {
	uri := path
	if r.URL.RawQuery != "" {
		uri += "?" + r.URL.RawQuery
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	out := &pb.Request{Method: method, Uri: uri}
	for _, name := range []string{"Content-Type", "Accept"} {
		if v := r.Header.Values(name); len(v) > 0 {
			out.Headers = append(out.Headers, &pb.Header{Name: name, Values: v})
		}
	}
	if r.Body == nil {
		return out, nil
	}
	body, err := readBody(w, r, m.cfg.MaxRecvMsgBytes)
	out.Body = body
	return out, err
}

// readBody reads a body of at most most bytes. Errors: Invalid.
func readBody(w http.ResponseWriter, r *http.Request, most int) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(most)))
	if _, big := errors.AsType[*http.MaxBytesError](err); big {
		return nil, errs.New(errs.Invalid, "the request has over %d bytes, the limit of alertmanager.max_recv_msg_size: %w", most, err)
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the request: %w", err)
	}
	return body, nil
}

// ask sends a request to the replicas that it needs and makes one answer of theirs.
func (m *Alertmanager) ask(ctx context.Context, id tenant.ID, req *pb.Request, path string) (*pb.Response, error) {
	r, err := m.deps.Replicas(id)
	if err != nil {
		m.metrics.ringCheckErrors.Inc()
		return nil, errs.New(errs.Unavailable, "find the replicas of the alertmanager: %w", err)
	}
	read := req.GetMethod() == http.MethodGet
	switch {
	case path == "/api/v2/alerts" && !read:
		return m.all(ctx, r, req, first)
	case path == "/api/v2/alerts":
		return m.all(ctx, r, req, mergeAlerts)
	case path == "/api/v2/alerts/groups" && read:
		return m.all(ctx, r, req, mergeGroups)
	case path == "/api/v2/silences" && read:
		return m.all(ctx, r, req, mergeSilences)
	case path == decisionsPath:
		return m.all(ctx, r, req, mergeDecisions)
	case path == GrafanaReceiversPath:
		return m.all(ctx, r, req, mergeReceivers)
	case path == GrafanaFullStatePath:
		return m.all(ctx, r, req, func(in []*pb.Response) (*pb.Response, error) { return m.mergeFullStates(id, in) })
	case strings.HasPrefix(path, "/api/v2/silence/") && read:
		return m.all(ctx, r, req, newestSilence)
	}
	return m.one(ctx, r, req)
}

// one returns the answer of the first replica that has one. A silence may have missed a replica, so
// the next one is asked if it is not found.
func (m *Alertmanager) one(ctx context.Context, r Replicas, req *pb.Request) (*pb.Response, error) {
	var missing *pb.Response
	var problem error
	for _, addr := range r.Addrs {
		out, err := m.call(ctx, addr, req)
		switch {
		case err != nil:
			problem = err
		case out.GetStatus() == http.StatusNotFound:
			missing = out
		default:
			return out, nil
		}
	}
	switch {
	case missing != nil:
		return missing, nil
	case problem == nil:
		problem = errs.New(errs.Unavailable, "no alertmanager is alive")
	}
	return nil, problem
}

// all sends a request to every replica and merges the answers once a quorum has answered. What a
// replica says about the request itself, and not about its own state, counts for all.
func (m *Alertmanager) all(ctx context.Context, r Replicas, req *pb.Request, merge func([]*pb.Response) (*pb.Response, error)) (*pb.Response, error) {
	answers := make([]*pb.Response, len(r.Addrs))
	problems := make([]error, len(r.Addrs))
	var wg sync.WaitGroup
	for i, addr := range r.Addrs {
		wg.Go(func() { answers[i], problems[i] = m.call(ctx, addr, req) })
	}
	wg.Wait()
	var good []*pb.Response
	var refused *pb.Response
	for i, a := range answers {
		switch {
		case problems[i] != nil:
		case a.GetStatus() >= 500:
			problems[i] = errs.New(errs.Unavailable, "replica %s: status %d: %s", r.Addrs[i], a.GetStatus(), bytes.TrimSpace(a.GetBody()))
		case a.GetStatus() >= 300 && a.GetStatus() != http.StatusNotFound:
			refused = a
		default:
			good = append(good, a)
		}
	}
	if refused != nil {
		return refused, nil
	}
	if len(good) < r.Quorum || len(good) == 0 {
		few := fmt.Errorf("%d of the alertmanager's replicas answered, and %d must", len(good), r.Quorum)
		return nil, errs.Wrap(errs.Unavailable, errors.Join(append([]error{few}, problems...)...))
	}
	return merge(good)
}

func (m *Alertmanager) call(ctx context.Context, addr string, req *pb.Request) (*pb.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, frontCall)
	defer cancel()
	c, err := m.deps.Client(addr)
	if err != nil {
		return nil, fmt.Errorf("replica %s: %w", addr, err)
	}
	out, err := c.HandleRequest(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("replica %s: %w", addr, err)
	}
	return out, nil
}

// Notify takes alerts from a ruler in this process, as POST of /api/v2/alerts does.
func (m *Alertmanager) Notify(ctx context.Context, id tenant.ID, alerts ...*notifier.Alert) error {
	out := make(models.PostableAlerts, 0, len(alerts))
	for _, a := range alerts {
		p := &models.PostableAlert{Annotations: models.LabelSet(a.Annotations.Map()), StartsAt: strfmt.DateTime(a.StartsAt), EndsAt: strfmt.DateTime(a.EndsAt)}
		p.Labels, p.GeneratorURL = models.LabelSet(a.Labels.Map()), strfmt.URI(a.GeneratorURL)
		out = append(out, p)
	}
	body, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("encode alerts: %w", err)
	}
	const path = "/api/v2/alerts"
	return m.fetch(ctx, id, &pb.Request{Method: http.MethodPost, Uri: path, Body: body, Headers: asJSON()}, path, nil)
}
