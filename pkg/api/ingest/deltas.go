package ingest

import (
	"context"
	"slices"
	"sync"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/otlp"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	"github.com/amphora-metrics/amphora/pkg/wire/deltapb"
)

// Peers are the distributors among which series of delta temporality are divided: each is added up by one.
type Peers interface {
	// Division returns who adds up the series with a hash: its address, none while nobody may; whether that
	// is this process; and since when at the earliest. Errors: Unavailable.
	Division() (func(hash uint64) (addr string, self bool, epoch int64), error)
	// Changes are the epochs of distributors that came or went, by ID; Learn takes in those of another.
	Changes() map[string]int64
	Learn(changes map[string]int64)
	// Add has the distributor at addr store what req carries, for the tenant of ctx.
	Add(ctx context.Context, addr string, req *deltapb.AddRequest) (*deltapb.AddResponse, error)
}

// errMoving is for points that nobody may add up for now.
var errMoving = errs.New(errs.Unavailable, "distributors came or went, and points of delta temporality are taken again when all know: send the same again")

// addressed is who gets the parts of one request.
type addressed struct {
	of    func(hash uint64) (addr string, self bool, epoch int64)
	peers []string // addresses
}

// place implements otlp.Place.
func (d *addressed) place(hash uint64) (peer int, epoch int64) {
	addr, self, epoch := d.of(hash)
	switch {
	case addr == "":
		return otlp.Nobody, 0
	case self:
		return otlp.Here, epoch
	}
	i := slices.Index(d.peers, addr)
	if i < 0 {
		i = len(d.peers)
		d.peers = append(d.peers, addr)
	}
	return i, epoch
}

// divide makes s add up series of delta temporality that belong here, if its tenant wants any added up.
// Errors: Unavailable.
func (a *API) divide(s *otlp.Settings) (*addressed, error) {
	s.Streams = a.streams
	if a.peers == nil {
		return nil, nil
	}
	of, err := a.peers.Division()
	if err != nil {
		return nil, err
	}
	d := &addressed{of: of}
	s.Place = d.place
	return d, nil
}

// translation is how the metrics of a tenant are translated, and who gets the points that are not added up
// here; nil: nobody does. Errors: Unavailable.
func (a *API) translation(id tenant.ID, handed bool) (s otlp.Settings, to *addressed, err error) {
	v := a.limits(id)
	s = otlp.SettingsOf(v)
	s.Tenant, s.Handed = string(id), handed
	a.streams.Sweep()
	if handed { // by one who read the limits otherwise, perhaps
		s.Deltas = false
	}
	if handed || limits.OTelDeltaToCumulative.Of(v) && !s.Deltas {
		to, err = a.divide(&s)
	}
	return s, to, err
}

// handOn has peers store their parts of a request, and adds what they refuse to out. Errors: those of the
// first that cannot.
func (a *API) handOn(ctx context.Context, res otlp.Result, to *addressed, out *outcome) error {
	if res.PartPoints == 0 {
		return nil
	}
	changes := a.peers.Changes()
	answers, failures := make([]*deltapb.AddResponse, len(res.Parts)), make([]error, len(res.Parts))
	var all sync.WaitGroup
	for i, part := range res.Parts {
		if len(part) > 0 {
			all.Go(func() {
				answers[i], failures[i] = a.peers.Add(ctx, to.peers[i], &deltapb.AddRequest{Export: part, Changes: changes})
			})
		}
	}
	all.Wait()
	for i, r := range answers {
		if len(res.Parts[i]) > 0 {
			a.metrics.handed(failures[i])
		}
		if failures[i] == nil && r != nil {
			a.peers.Learn(r.Changes)
			out.refused += int(r.Refused)
			if out.message == "" {
				out.message = r.Message
			}
		}
	}
	for _, err := range failures {
		if err != nil {
			return errs.New(errs.KindOf(err), "hand points of delta temporality to the distributor that adds them up: %w", err)
		}
	}
	return nil
}

// DeltaServer takes what other distributors hand on.
type DeltaServer struct {
	deltapb.UnimplementedDeltasServer
	a *API
}

// Deltas serves the other distributors.
func (a *API) Deltas() *DeltaServer { return &DeltaServer{a: a} }

// Add implements deltapb.DeltasServer.
func (s *DeltaServer) Add(ctx context.Context, req *deltapb.AddRequest) (*deltapb.AddResponse, error) {
	id, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	if s.a.peers == nil {
		return nil, errs.New(errs.Unavailable, "this process is no distributor among several")
	}
	s.a.peers.Learn(req.Changes)
	share := s.a.bodies.share()
	defer share.release()
	if err := share.grow(len(req.Export)); err != nil {
		return nil, err
	}
	out, points, err := s.a.store(ctx, id, req.Export, share, true)
	switch {
	case err != nil && errs.KindOf(err) == errs.Accepted: // another replica is elected
		out = outcome{}
	case err != nil && errs.KindOf(err) == errs.Invalid && points > 0:
		out = outcome{refused: points, message: err.Error()}
	case err != nil:
		return nil, err
	}
	return &deltapb.AddResponse{Refused: int64(out.refused), Message: out.message, Changes: s.a.peers.Changes()}, nil
}

// store translates the export request plain and stores it: what belongs here, and then, through others,
// what belongs there. If a part was refused and the rest stored, that is no error but in the outcome. points
// is how many points the request has.
func (a *API) store(ctx context.Context, id tenant.ID, plain []byte, share *share, handed bool) (out outcome, points int, err error) {
	settings, to, err := a.translation(id, handed)
	if err != nil {
		return out, 0, err
	}
	t := a.translators.Get().(*otlp.Translator)
	room := &room{a: a, share: share, most: translatedRatio * a.cfg.Protocols.MaxOTLPBytes}
	first, err := room.Grow(nil, len(plain))
	if err != nil {
		return out, 0, err
	}
	res, err := t.Translate(plain, &settings, first, room)
	a.translators.Put(t)
	defer a.buffers.give(res.Body)
	if err != nil {
		return out, res.Points, a.otlpTooLarge(err)
	}
	written, err := a.pusher.Push(ctx, id, &remotewrite.Request{Version: remotewrite.V2, Body: res.Body, Origin: remotewrite.OTLP, Refused: res.Refused, Handed: handed})
	if errs.KindOf(err) == errs.Accepted && err != nil && res.PartPoints > 0 {
		written, err = remotewrite.Written{}, nil // those of another replica are not stored, and no reason to leave out the rest
	}
	out, err = a.judge(res, written, err)
	if err == nil {
		err = a.handOn(ctx, res, to, &out)
	}
	if err == nil && res.Unplaced > 0 {
		err = errMoving
	}
	if err == nil && out.refused > 0 && out.refused == res.Points {
		err = errs.New(errs.Invalid, "%s", out.message)
	}
	return out, res.Points, err
}
