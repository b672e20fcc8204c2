package alertmanager

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/nflog"
	"github.com/prometheus/alertmanager/nflog/nflogpb"
	"github.com/prometheus/alertmanager/notify"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// A notification has a name, which follows from what it says and from the one before it, so that every
// replica gives it the same. The replicas know the name before it is sent. If the sender dies before it
// told what became of it, its successor finds that it was under way: nobody can know whether it arrived.
// It is sent again under the same name, by which a receiver can drop it; or not, if the tenant has it so.

// contextKey is the type of what this package puts into contexts.
type contextKey int

const (
	keyOfName contextKey = iota
	keyOfDoubt
	keyOfClaim
)

// idempotencyKey is the name of the notification that ctx is for, empty if it has none yet.
func idempotencyKey(ctx context.Context) string {
	key, _ := ctx.Value(keyOfName).(string)
	return key
}

// doubtful says that the notification that ctx is for may have arrived already.
func doubtful(ctx context.Context) bool {
	doubt, _ := ctx.Value(keyOfDoubt).(bool)
	return doubt
}

// nameOf is the name of a notification of a group to a receiver, which follows on what lastOf returned.
func nameOf(id tenant.ID, to *nflogpb.Receiver, group, last string, firing, resolved []uint64) string {
	firing, resolved = slices.Sorted(slices.Values(firing)), slices.Sorted(slices.Values(resolved))
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %d %q %s %x %x", id, to.GetGroupName(), to.GetIntegration(), to.GetIdx(), group, last, firing, resolved))
	return hex.EncodeToString(sum[:])
}

// lastOf says what a notification of alerts follows on: before, the one logged before it. If that is nil, none was, or
// the log has forgotten it, which it does after two repeat intervals: when the first of the alerts began, and how many
// intervals ago, tells it from those. Of an alert that was posted without a time each replica has its own by the
// clock, so that only the minute counts; and a successor is seldom so late that it counts another interval.
func lastOf(before *nflogpb.Entry, alerts []*alert.Alert, now time.Time, repeat time.Duration) string {
	if before != nil {
		return strconv.FormatInt(before.GetTimestamp().AsTime().UnixNano(), 10)
	}
	began := slices.MinFunc(alerts, func(a, b *alert.Alert) int { return a.StartsAt.Compare(b.StartsAt) }).StartsAt
	return fmt.Sprintf("%d/%d", began.Truncate(time.Minute).Unix(), now.Sub(began)/max(repeat, time.Second))
}

// The policies for a notification of which nobody knows whether it arrived.
const (
	unconfirmedSend = "send"
	unconfirmedDrop = "drop"
)

// doubtStage does not send again what may have arrived, if the tenant has it so.
type doubtStage struct {
	notify.Stage
	view    func() limits.View
	metrics *metrics
}

// Exec implements notify.Stage. What is dropped counts as sent, so that nobody tries it again.
func (s doubtStage) Exec(ctx context.Context, l *slog.Logger, alerts ...*alert.Alert) (context.Context, []*alert.Alert, error) {
	if !doubtful(ctx) {
		return s.Stage.Exec(ctx, l, alerts...)
	}
	policy := limits.AlertmanagerUnconfirmed.Of(s.view())
	s.metrics.unconfirmed.WithLabelValues(policy).Inc()
	if policy == unconfirmedDrop {
		return ctx, alerts, nil
	}
	return s.Stage.Exec(ctx, l, alerts...)
}

// intentStage names the notification and tells the other replicas that it is being sent.
type intentStage struct {
	id  tenant.ID
	log notify.NotificationLog
	to  *nflogpb.Receiver
}

// Exec implements notify.Stage.
func (s intentStage) Exec(ctx context.Context, _ *slog.Logger, alerts ...*alert.Alert) (context.Context, []*alert.Alert, error) {
	if len(alerts) == 0 {
		return ctx, nil, nil
	}
	group, _ := notify.GroupKey(ctx)
	firing, _ := notify.FiringAlerts(ctx)
	resolved, _ := notify.ResolvedAlerts(ctx)
	entries, err := s.log.Query(nflog.QGroupKey(group), nflog.QReceiver(s.to))
	if err != nil && !errors.Is(err, nflog.ErrNotFound) {
		return ctx, nil, err
	}
	var before *nflogpb.Entry
	if len(entries) > 0 {
		before = entries[0]
	}
	now, _ := notify.Now(ctx)
	repeat, _ := notify.RepeatInterval(ctx)
	name := nameOf(s.id, s.to, group, lastOf(before, alerts, now, repeat), firing, resolved)
	ctx = context.WithValue(ctx, keyOfName, name)
	if c := claimOf(ctx); c != nil && c.intend(ctx, name) {
		ctx = context.WithValue(ctx, keyOfDoubt, true)
	}
	return ctx, alerts, nil
}
