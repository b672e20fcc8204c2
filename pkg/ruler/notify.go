package ruler

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/grafana/dskit/user"
	"github.com/prometheus/client_golang/prometheus"
	common "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/notifier"
	"github.com/prometheus/prometheus/rules"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// inProcess is the host of the alertmanager of this process, which no name can resolve to.
const inProcess = "in-process.invalid"

// receiver is a URL that alerts go to.
type receiver struct {
	url    *url.URL // with http or https
	lookup string   // how its host is resolved: "", dns or dnssrv
}

// parseReceiver reads an entry of alertmanager_url.
func parseReceiver(text string) (receiver, error) {
	lookup, rest := "", text
	for _, kind := range []string{"dnssrvnoa", "dnssrv", "dns"} {
		if after, ok := strings.CutPrefix(text, kind+"+"); ok {
			lookup, rest = strings.TrimSuffix(kind, "noa"), after
			break
		}
	}
	u, err := url.Parse(rest)
	if err != nil {
		return receiver{}, fmt.Errorf("%q is no URL: %w", text, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return receiver{}, fmt.Errorf("%q is no URL with http or https and a host", text)
	}
	return receiver{u, lookup}, nil
}

// addresses returns where the receiver is now, as host:port.
func (rc receiver) addresses(ctx context.Context) ([]string, error) {
	port := rc.url.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[rc.url.Scheme]
	}
	host := rc.url.Hostname()
	var out []string
	switch rc.lookup {
	case "dns":
		ips, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return nil, fmt.Errorf("resolve %s: %w", host, err)
		}
		for _, ip := range ips {
			out = append(out, net.JoinHostPort(ip, port))
		}
	case "dnssrv":
		_, records, err := net.DefaultResolver.LookupSRV(ctx, "", "", host)
		if err != nil {
			return nil, fmt.Errorf("resolve %s: %w", host, err)
		}
		for _, r := range records {
			out = append(out, net.JoinHostPort(strings.TrimSuffix(r.Target, "."), fmt.Sprint(r.Port)))
		}
	default:
		out = []string{net.JoinHostPort(host, port)}
	}
	slices.Sort(out)
	return out, nil
}

// notify sends the alerts of one tenant.
type notify struct {
	w         *worker
	receivers []receiver
	manager   *notifier.Manager // nil: alerts go nowhere
	targets   chan map[string][]*targetgroup.Group
	quit      chan struct{}
	running   sync.WaitGroup
	sender    rules.NotifyFunc
	external  labels.Labels // that alerts get; of the goroutine that applies changes
}

func newNotify(w *worker, reg prometheus.Registerer) *notify {
	n := &notify{w: w, targets: make(chan map[string][]*targetgroup.Group), quit: make(chan struct{})}
	cfg := &w.r.cfg
	for _, text := range cfg.Notifier.Alertmanagers {
		if rc, err := parseReceiver(text); err == nil { // checked with the settings
			n.receivers = append(n.receivers, rc)
		}
	}
	if len(n.receivers) == 0 && w.r.deps.Alertmanager != nil {
		n.receivers = []receiver{{url: &url.URL{Scheme: "http", Host: inProcess}}}
	}
	if len(n.receivers) == 0 {
		return n
	}
	n.manager = notifier.NewManager(&notifier.Options{
		QueueCapacity: cfg.Notifier.QueueCapacity, DrainOnShutdown: true, Registerer: reg, Do: n.do,
	}, model.UTF8Validation, w.log)
	if err := n.manager.ApplyConfig(n.config()); err != nil {
		w.log.Error("alerts cannot be sent, they are dropped", "err", err)
		n.manager = nil
		return n
	}
	n.external = w.externalLabels()
	n.sender = rules.SendAlerts(n.manager, cfg.ExternalURL.Text)
	n.running.Go(func() { n.manager.Run(n.targets) })
	n.running.Go(n.resolve)
	return n
}

// setName names the set of a receiver, for its configuration and its addresses.
func setName(i int) string { return fmt.Sprintf("config-%d", i) }

// config is the configuration of the library's notifier.
func (n *notify) config() *config.Config {
	c := &config.Config{GlobalConfig: config.GlobalConfig{ExternalLabels: n.w.externalLabels(), MetricNameValidationScheme: model.UTF8Validation}}
	for _, rc := range n.receivers {
		am := &config.AlertmanagerConfig{
			Scheme: rc.url.Scheme, PathPrefix: rc.url.Path, APIVersion: config.AlertmanagerAPIVersionV2,
			Timeout: model.Duration(n.w.r.cfg.Notifier.Timeout), HTTPClientConfig: common.HTTPClientConfig{FollowRedirects: false, EnableHTTP2: true},
			ServiceDiscoveryConfigs: discovery.Configs{},
		}
		if u := rc.url.User; u != nil {
			password, _ := u.Password()
			am.HTTPClientConfig.BasicAuth = &common.BasicAuth{Username: u.Username(), Password: common.Secret(password)}
		}
		c.AlertingConfig.AlertmanagerConfigs = append(c.AlertingConfig.AlertmanagerConfigs, am)
	}
	return c
}

// relabel gives alerts the labels that the limits have now.
func (n *notify) relabel() {
	ls := n.w.externalLabels()
	if n.manager == nil || labels.Equal(ls, n.external) {
		return
	}
	if err := n.manager.ApplyConfig(n.config()); err != nil {
		n.w.log.Error("alerts keep their former external labels", "err", err)
		return
	}
	n.external = ls
}

// resolve tells the manager where receivers are, until stop. A name that cannot be resolved keeps
// the addresses it had.
func (n *notify) resolve() {
	every := time.NewTicker(n.w.r.cfg.Notifier.Refresh)
	defer every.Stop()
	known := map[string][]*targetgroup.Group{}
	for {
		for i, rc := range n.receivers {
			ctx, cancel := context.WithTimeout(n.w.ctx, n.w.r.cfg.Notifier.Timeout)
			found, err := rc.addresses(ctx)
			cancel()
			if err != nil {
				n.w.log.Warn("alertmanagers not found, alerts go to those known", "url", rc.url.Redacted(), "err", err)
				continue
			}
			g := &targetgroup.Group{Source: setName(i)}
			for _, a := range found {
				g.Targets = append(g.Targets, model.LabelSet{model.AddressLabel: model.LabelValue(a)})
			}
			known[setName(i)] = []*targetgroup.Group{g}
		}
		select {
		case n.targets <- maps.Clone(known):
		case <-n.quit:
			return
		}
		select {
		case <-every.C:
		case <-n.quit:
			return
		}
	}
}

// send hands over the alerts of one evaluation. It implements rules.NotifyFunc.
func (n *notify) send(ctx context.Context, expr string, alerts ...*rules.Alert) {
	if n.manager != nil {
		n.sender(ctx, expr, alerts...)
	}
}

// stop sends what waits, as far as receivers take it, and ends. Nothing may be sent after it.
func (n *notify) stop() {
	close(n.quit)
	if n.manager == nil {
		return
	}
	n.manager.Stop()
	done := make(chan struct{})
	go func() { n.running.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(stopWait):
		n.w.log.Warn("alerts that no alertmanager took in time are dropped, the ruler stops")
	}
}

// do sends one batch on behalf of the tenant.
func (n *notify) do(ctx context.Context, client *http.Client, req *http.Request) (*http.Response, error) {
	if req.URL.Hostname() != inProcess {
		req.Header.Set(user.OrgIDHeaderName, string(n.w.id))
		return client.Do(req.WithContext(ctx))
	}
	var alerts []*notifier.Alert
	if err := json.NewDecoder(req.Body).Decode(&alerts); err != nil {
		return nil, errs.New(errs.Internal, "read alerts back: %w", err)
	}
	if err := n.w.r.deps.Alertmanager(tenant.Inject(ctx, n.w.id), n.w.id, alerts...); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: http.NoBody, Request: req}, nil
}
