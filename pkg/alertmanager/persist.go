package alertmanager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/prometheus/alertmanager/cluster/clusterpb"
	"github.com/thanos-io/objstore"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

const (
	// stateField is the number of the only field of the stored message, which holds the parts. It is
	// what Mimir stores, with a part for alerts added.
	stateField = 1
	// maxState bounds what is read back.
	maxState = 256 << 20
	// persistCall bounds a read or write of a tenant's state.
	persistCall = 30 * time.Second
	// persistSoon is how long changes gather that no other replica has.
	persistSoon = time.Second
)

// stateObject is where the state of a tenant lies in the bucket.
func stateObject(id tenant.ID) string { return "alertmanager/" + string(id) + "/fullstate" }

// soon makes the state be persisted: there is no other replica to keep it.
func (in *instance) soon() {
	select {
	case in.dirty <- struct{}{}:
	default:
	}
}

// persistLoop writes the state to object storage: the first replica from time to time, and one that
// is alone soon after every change.
func (in *instance) persistLoop(ctx context.Context) {
	if in.WaitReady(ctx) != nil {
		return
	}
	every := in.m.cfg.PersistInterval
	next := time.NewTimer(every/2 + rand.N(every/2+1))
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
			if in.position() == 0 {
				in.persist(ctx)
			}
			next.Reset(every)
		case <-in.dirty:
			if pause(ctx, persistSoon) == nil {
				in.persist(ctx)
			}
		}
	}
}

// persist writes the state to object storage.
func (in *instance) persist(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, persistCall)
	defer cancel()
	in.m.metrics.persists.Inc()
	err := func() error {
		s, err := in.full()
		if err != nil {
			return err
		}
		data, err := encodeState(in.id, s)
		if err != nil {
			return err
		}
		return in.m.deps.Bucket.Upload(ctx, stateObject(in.id), bytes.NewReader(data))
	}()
	if err != nil {
		in.m.metrics.persistFailures.Inc()
		in.log.Warn("state not stored, the replicas have it and will store it later", "err", err)
	}
}

// restore reads the state back and returns how that went.
func (in *instance) restore(ctx context.Context) (outcome string) {
	ctx, cancel := context.WithTimeout(ctx, persistCall)
	defer cancel()
	s, err := readState(ctx, in.m.deps.Bucket, in.id)
	switch {
	case errs.KindOf(err) == errs.NotFound:
		return "user-not-found"
	case err == nil:
		err = in.merge(ctx, s)
	}
	if err != nil {
		in.log.Error("state cannot be read back, what was notified before may be notified again and silences are lost", "err", err)
		return "failed"
	}
	return "from-storage"
}

// readState reads what persist wrote. Errors: NotFound.
func readState(ctx context.Context, bkt objstore.Bucket, id tenant.ID) (*pb.State, error) {
	r, err := bkt.Get(ctx, stateObject(id))
	if err != nil {
		if bkt.IsObjNotFoundErr(err) {
			return nil, errs.New(errs.NotFound, "tenant %s has no state", id)
		}
		return nil, fmt.Errorf("read state of tenant %s: %w", id, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxState+1))
	if err != nil {
		return nil, fmt.Errorf("read state of tenant %s: %w", id, err)
	}
	if len(data) > maxState {
		return nil, fmt.Errorf("state of tenant %s is over %d bytes", id, maxState)
	}
	return decodeState(data)
}

// The kinds of parts, each followed by the tenant.
const (
	partSilences      = "sil:"
	partNotifications = "nfl:"
	partAlerts        = "amphora-alerts:"
)

func encodeState(id tenant.ID, s *pb.State) ([]byte, error) {
	alerts, err := (&pb.State{Alerts: s.GetAlerts()}).MarshalVT()
	if err != nil {
		return nil, err
	}
	full, err := proto.Marshal(&clusterpb.FullState{Parts: []*clusterpb.Part{
		{Key: partNotifications + string(id), Data: s.GetNotifications()},
		{Key: partSilences + string(id), Data: s.GetSilences()},
		{Key: partAlerts + string(id), Data: alerts},
	}})
	if err != nil {
		return nil, err
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, stateField, protowire.BytesType), full), nil
}

var errState = errors.New("stored state is damaged")

// decodeState reads what encodeState or Mimir wrote. Parts that it does not know are left out.
func decodeState(data []byte) (*pb.State, error) {
	num, typ, n := protowire.ConsumeTag(data)
	if n < 0 || num != stateField || typ != protowire.BytesType {
		return nil, errState
	}
	inner, m := protowire.ConsumeBytes(data[n:])
	if m < 0 {
		return nil, errState
	}
	var full clusterpb.FullState
	if err := proto.Unmarshal(inner, &full); err != nil {
		return nil, fmt.Errorf("%w: %w", errState, err)
	}
	out := &pb.State{}
	for _, p := range full.GetParts() {
		switch key := p.GetKey(); {
		case hasKind(key, partSilences):
			out.Silences = append(out.Silences, p.GetData()...)
		case hasKind(key, partNotifications):
			out.Notifications = append(out.Notifications, p.GetData()...)
		case hasKind(key, partAlerts):
			var s pb.State
			if err := s.UnmarshalVT(p.GetData()); err != nil {
				return nil, fmt.Errorf("%w: %w", errState, err)
			}
			out.Alerts = append(out.Alerts, s.GetAlerts()...)
		}
	}
	return out, nil
}

func hasKind(key, kind string) bool { return len(key) >= len(kind) && key[:len(kind)] == kind }
