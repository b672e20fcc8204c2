package alertmanager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"time"

	"github.com/prometheus/alertmanager/alert"
	amconfig "github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/config/receiver"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/notify/email"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"golang.org/x/time/rate"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
)

// sending is what integrations need beside their configuration.
type sending struct {
	log     *slog.Logger
	view    func() limits.View
	limited *prometheus.CounterVec                                            // by integration
	dial    func(ctx context.Context, network, addr string) (net.Conn, error) // nil: the firewall's
}

// integrations builds what sends to one receiver. Errors: Invalid.
func (s *sending) integrations(r amconfig.Receiver, t *template.Template) ([]notify.Integration, []*sender, error) {
	wall := firewall{s.view}
	dial := s.dial
	if dial == nil {
		dial = wall.dial
	}
	opts := config.WithDialContextFunc(dial)
	own := r // what this package sends itself
	r.EmailConfigs, r.WebhookConfigs, r.SNSConfigs = nil, nil, nil
	built, err := receiver.BuildReceiverIntegrations(r, t, s.log, opts)
	if err != nil {
		return nil, nil, errs.New(errs.Invalid, "receiver %q: %w", r.Name, err)
	}
	for i, c := range own.WebhookConfigs {
		n, err := newHooks(c, t, s.log, opts)
		if err != nil {
			return nil, nil, errs.New(errs.Invalid, "receiver %q: webhook: %w", r.Name, err)
		}
		built = append(built, notify.NewIntegration(n, c, "webhook", i, r.Name))
	}
	for i, c := range own.SNSConfigs {
		n, err := newPublisher(c, t, s.log, wall)
		if err != nil {
			return nil, nil, errs.New(errs.Invalid, "receiver %q: sns: %w", r.Name, err)
		}
		built = append(built, notify.NewIntegration(n, c, "sns", i, r.Name))
	}
	for i, c := range own.EmailConfigs {
		built = append(built, notify.NewIntegration(&mail{c, t, s.log, wall}, c, "email", i, r.Name))
	}
	out, senders := make([]notify.Integration, len(built)), make([]*sender, len(built))
	for i := range built {
		in := &built[i]
		senders[i] = &sender{sending: s, to: in, limit: rate.NewLimiter(rate.Inf, 1)}
		out[i] = notify.NewIntegration(senders[i], in, in.Name(), in.Index(), r.Name)
	}
	return out, senders, nil
}

// mail sends mails through an address that the firewall lets pass.
type mail struct {
	conf *amconfig.EmailConfig
	tmpl *template.Template
	log  *slog.Logger
	wall firewall
}

// Notify implements notify.Notifier. Upstream connects to a name by itself, so the name is resolved
// here and the address is given to it.
func (m *mail) Notify(ctx context.Context, alerts ...*alert.Alert) (bool, error) {
	if !m.wall.active() {
		return email.New(m.conf, m.tmpl, m.log).Notify(ctx, alerts...)
	}
	host := m.conf.Smarthost.Host
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return true, fmt.Errorf("find the mail server: %w", err)
	}
	var blocked error
	for _, ip := range ips {
		if err := m.wall.check(ip); err != nil {
			blocked = err
			continue
		}
		c := *m.conf
		c.Smarthost.Host = ip.Unmap().String()
		secure := config.TLSConfig{}
		if c.TLSConfig != nil {
			secure = *c.TLSConfig
		}
		if secure.ServerName == "" {
			secure.ServerName = host
		}
		c.TLSConfig = &secure
		return email.New(&c, m.tmpl, m.log).Notify(ctx, alerts...)
	}
	if blocked == nil {
		blocked = errors.New("the mail server has no address")
	}
	return false, blocked
}

// sender is an integration within the limits of its tenant.
type sender struct {
	*sending
	to    *notify.Integration
	limit *rate.Limiter
	tried attempts
}

// finish is how long an attempt may go on after its dispatcher stopped: an attempt cut short may
// have arrived, and would be made again by another replica.
const finish = 5 * time.Second

var errLimited = errors.New("notification dropped, the tenant sends more than its limit alertmanager_notification_rate_limit")

// Notify implements notify.Notifier.
func (s *sender) Notify(ctx context.Context, alerts ...*alert.Alert) (bool, error) {
	if err := ctx.Err(); err != nil {
		return true, err
	}
	if !s.allow() {
		s.limited.WithLabelValues(s.to.Name()).Inc()
		s.tried.note(time.Now(), errLimited)
		return false, errLimited
	}
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		if !errors.Is(ctx.Err(), context.Canceled) {
			cancel(context.Cause(ctx))
			return
		}
		wait := time.NewTimer(finish)
		defer wait.Stop()
		select {
		case <-wait.C:
			cancel(context.Cause(ctx))
		case <-inner.Done():
		}
	})
	defer stop()
	began := time.Now()
	retry, err := s.to.Notify(inner, alerts...)
	s.tried.note(began, err)
	return retry, err
}

// allow says whether the tenant may send now. The limit may change at any time.
func (s *sender) allow() bool {
	v := s.view()
	most, ok := limits.AlertmanagerNotificationRates.Of(v).Of(s.to.Name())
	if !ok {
		most = limits.AlertmanagerNotificationRate.Of(v)
	}
	switch {
	case most == 0:
		return true
	case most < 0:
		return false
	}
	if s.limit.Limit() != rate.Limit(most) {
		s.limit.SetLimit(rate.Limit(most))
		s.limit.SetBurst(int(math.Ceil(most)))
	}
	return s.limit.Allow()
}
