package ruler

import (
	"context"
	"encoding/json"
	"fmt"
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
	"github.com/amphora-metrics/amphora/pkg/limits"
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
	w       *worker
	manager *notifier.Manager
	targets chan map[string][]*targetgroup.Group
	again   chan struct{} // has an item when receivers changed
	quit    chan struct{}
	running sync.WaitGroup
	sender  rules.NotifyFunc

	external labels.Labels              // that alerts get; of the goroutine that applies changes
	client   *limits.AlertmanagerClient // in force; of the same

	mu        sync.Mutex // guards receivers
	receivers []receiver
}

func newNotify(w *worker, reg prometheus.Registerer) *notify {
	n := &notify{w: w, targets: make(chan map[string][]*targetgroup.Group), again: make(chan struct{}, 1), quit: make(chan struct{})}
	cfg := &w.r.cfg
	n.manager = notifier.NewManager(&notifier.Options{
		QueueCapacity: cfg.Notifier.QueueCapacity, DrainOnShutdown: true, Registerer: reg, Do: n.do,
	}, model.UTF8Validation, w.log)
	n.sender = rules.SendAlerts(n.manager, cfg.ExternalURL.Text)
	n.refresh()
	n.running.Go(func() { n.manager.Run(n.targets) })
	n.running.Go(n.resolve)
	return n
}

// addressed returns where alerts go by the limits and the settings.
func (n *notify) addressed(client *limits.AlertmanagerClient) []receiver {
	texts := client.List(limits.ClientURL)
	if len(texts) == 0 {
		texts = n.w.r.cfg.Notifier.Alertmanagers
	}
	var out []receiver
	for _, text := range texts {
		rc, err := parseReceiver(text)
		if err != nil { // of the limits; the settings were checked
			n.w.log.Error("alerts do not go to an address of the tenant's ruler_alertmanager_client_config", "err", err)
			continue
		}
		out = append(out, rc)
	}
	if len(texts) == 0 && n.w.r.deps.Alertmanager != nil {
		out = []receiver{{url: &url.URL{Scheme: "http", Host: inProcess}}}
	}
	return out
}

// current returns where alerts go.
func (n *notify) current() []receiver {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.receivers
}

// setName names the set of a receiver, for its configuration and its addresses.
func setName(i int) string { return fmt.Sprintf("config-%d", i) }

// config is the configuration of the library's notifier.
func (n *notify) config(receivers []receiver, client *limits.AlertmanagerClient) *config.Config {
	c := &config.Config{GlobalConfig: config.GlobalConfig{ExternalLabels: n.w.externalLabels(), MetricNameValidationScheme: model.UTF8Validation}}
	for _, rc := range receivers {
		am := &config.AlertmanagerConfig{
			Scheme: rc.url.Scheme, PathPrefix: rc.url.Path, APIVersion: config.AlertmanagerAPIVersionV2,
			Timeout: model.Duration(n.w.r.cfg.Notifier.Timeout), HTTPClientConfig: clientConfig(client),
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

// clientConfig is as whom alerts are sent.
func clientConfig(c *limits.AlertmanagerClient) common.HTTPClientConfig {
	out := common.HTTPClientConfig{FollowRedirects: false, EnableHTTP2: true, TLSConfig: common.TLSConfig{
		CAFile: c.Text(limits.ClientCA), CertFile: c.Text(limits.ClientCert), KeyFile: c.Text(limits.ClientKey), ServerName: c.Text(limits.ClientServerName),
		InsecureSkipVerify: c.Text(limits.ClientAnyServer) == "true"}}
	if name := c.Text(limits.ClientUser); name != "" {
		out.BasicAuth = &common.BasicAuth{Username: name, Password: common.Secret(c.Text(limits.ClientPassword))}
	}
	if id := c.Text(limits.ClientOAuthID); id != "" {
		out.OAuth2 = &common.OAuth2{ClientID: id, ClientSecret: common.Secret(c.Text(limits.ClientOAuthSecret)), TokenURL: c.Text(limits.ClientOAuthTokenURL), Scopes: c.List(limits.ClientOAuthScopes)}
	}
	if proxy, err := url.Parse(c.Text(limits.ClientProxy)); err == nil && proxy.Host != "" {
		out.ProxyURL = common.URL{URL: proxy}
	}
	return out
}

// refresh gives alerts the labels and the receivers that the limits have now.
func (n *notify) refresh() {
	ls, client := n.w.externalLabels(), limits.RulerAlertmanagerClient.Of(n.w.limits())
	if n.client != nil && labels.Equal(ls, n.external) && client.Same(n.client) {
		return
	}
	receivers := n.addressed(client)
	if err := n.manager.ApplyConfig(n.config(receivers, client)); err != nil {
		n.w.log.Error("alerts go where they went before, with the labels that they had", "err", err)
		return
	}
	n.external, n.client = ls, client
	n.mu.Lock()
	n.receivers = receivers
	n.mu.Unlock()
	select {
	case n.again <- struct{}{}:
	default:
	}
}

// resolve tells the manager where receivers are, until stop. A name that cannot be resolved keeps
// the addresses it had.
func (n *notify) resolve() {
	every := time.NewTicker(n.w.r.cfg.Notifier.Refresh)
	defer every.Stop()
	type place struct {
		at     string
		groups []*targetgroup.Group
	}
	known := map[string]place{}
	for {
		out := map[string][]*targetgroup.Group{}
		for i, rc := range n.current() {
			name := setName(i)
			if g, err := n.targetsOf(name, rc); err != nil {
				n.w.log.Warn("alertmanagers not found, alerts go to those known", "url", rc.url.Redacted(), "err", err)
			} else {
				known[name] = place{rc.url.String(), []*targetgroup.Group{g}}
			}
			if p := known[name]; p.at == rc.url.String() {
				out[name] = p.groups
			}
		}
		select {
		case n.targets <- out:
		case <-n.quit:
			return
		}
		select {
		case <-every.C:
		case <-n.again:
		case <-n.quit:
			return
		}
	}
}

// targetsOf resolves the address of a receiver.
func (n *notify) targetsOf(name string, rc receiver) (*targetgroup.Group, error) {
	ctx, cancel := context.WithTimeout(n.w.ctx, n.w.r.cfg.Notifier.Timeout)
	defer cancel()
	found, err := rc.addresses(ctx)
	if err != nil {
		return nil, err
	}
	g := &targetgroup.Group{Source: name}
	for _, a := range found {
		g.Targets = append(g.Targets, model.LabelSet{model.AddressLabel: model.LabelValue(a)})
	}
	return g, nil
}

// send hands over the alerts of one evaluation. It implements rules.NotifyFunc.
func (n *notify) send(ctx context.Context, expr string, alerts ...*rules.Alert) {
	if len(n.current()) > 0 {
		n.sender(ctx, expr, alerts...)
	}
}

// stop sends what waits, as far as receivers take it, and ends. Nothing may be sent after it.
func (n *notify) stop() {
	close(n.quit)
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
