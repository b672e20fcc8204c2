package alertmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/alertmanager/notify/webhook"
	"github.com/prometheus/alertmanager/template"
	"github.com/prometheus/common/config"
)

// keyHeader names a notification by what it says: one that is sent again, since nobody could know
// whether it arrived, has the same name.
const keyHeader = "Idempotency-Key"

// hooks posts to a webhook what upstream does, under the name of the notification.
type hooks struct {
	conf    *webhook.WebhookConfig
	tmpl    *template.Template
	log     *slog.Logger
	client  *http.Client
	retrier notify.Retrier
}

func newHooks(c *webhook.WebhookConfig, t *template.Template, log *slog.Logger, opts ...config.HTTPClientOption) (*hooks, error) {
	client, err := notify.NewClientWithTracing(*c.HTTPConfig, "webhook", opts...)
	if err != nil {
		return nil, err
	}
	client.Transport = named{client.Transport}
	return &hooks{conf: c, tmpl: t, log: log, client: client}, nil
}

// named gives requests the name of the notification that they belong to. What a redirect leads to
// gets it too.
type named struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (n named) RoundTrip(r *http.Request) (*http.Response, error) {
	key := idempotencyKey(r.Context())
	if key == "" {
		return n.RoundTripper.RoundTrip(r)
	}
	r = r.Clone(r.Context())
	r.Header.Set(keyHeader, key)
	return n.RoundTripper.RoundTrip(r)
}

// Notify implements notify.Notifier.
func (h *hooks) Notify(ctx context.Context, alerts ...*alert.Alert) (retry bool, err error) {
	group, err := notify.ExtractGroupKey(ctx)
	if err != nil {
		return false, err
	}
	left := uint64(0)
	if most := h.conf.MaxAlerts; most > 0 && uint64(len(alerts)) > most {
		alerts, left = alerts[:most], uint64(len(alerts))-most
	}
	data := notify.GetTemplateData(ctx, h.tmpl, alerts, h.log)
	var body any = &webhook.Message{Version: "4", Data: data, GroupKey: group.String(), TruncatedAlerts: left}
	var problem error
	text := notify.TmplText(h.tmpl, data, &problem)
	if h.conf.Payload != nil {
		if body, err = template.DeepCopyWithTemplate(h.conf.Payload, func(s string) (string, error) { return text(s), problem }); err != nil {
			return false, fmt.Errorf("templates of the payload: %w", err)
		}
	}
	to, err := h.address(text)
	if err = errors.Join(err, problem); err != nil {
		return false, fmt.Errorf("address of the webhook: %w", err)
	}
	var out bytes.Buffer
	if err := json.NewEncoder(&out).Encode(body); err != nil {
		return false, err
	}
	if h.conf.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, h.conf.Timeout, fmt.Errorf("the webhook did not answer within its timeout of %s", h.conf.Timeout))
		defer cancel()
	}
	answer, err := notify.PostJSON(ctx, h.client, to, &out)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
		return true, notify.RedactURL(err)
	}
	defer notify.Drain(answer)
	if retry, err = h.retrier.Check(answer.StatusCode, answer.Body); err != nil {
		return retry, notify.NewErrorWithReason(notify.GetFailureReasonFromStatusCode(answer.StatusCode), err)
	}
	return false, nil
}

// address is where to post to.
func (h *hooks) address(text func(string) string) (string, error) {
	from := string(h.conf.URL)
	if from == "" { // of the operator's base; tenants may not name files
		data, err := os.ReadFile(h.conf.URLFile)
		if err != nil {
			return "", err
		}
		from = strings.TrimSpace(string(data))
	}
	to := text(from)
	if to == "" {
		return "", errors.New("it is empty")
	}
	return to, nil
}
