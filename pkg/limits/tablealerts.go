package limits

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// Alertmanagers.
var (
	AlertmanagerBlockCIDRs = define("alertmanager_receivers_firewall_block_cidr_networks", "alertmanager.receivers-firewall-block-cidr-networks", []string(nil), "",
		"Networks, such as 10.0.0.0/8, that a tenant's receivers may not be in.", "alertmanager").
		must(func(networks []string) error {
			for _, text := range networks {
				if _, err := netip.ParsePrefix(text); err != nil {
					return fmt.Errorf("%q is no network in CIDR notation", text)
				}
			}
			return nil
		})
	AlertmanagerBlockPrivate = define("alertmanager_receivers_firewall_block_private_addresses", "alertmanager.receivers-firewall-block-private-addresses", false, "",
		"Whether a tenant's receivers may not be at private, loopback, link-local or multicast addresses.", "alertmanager")
	AlertmanagerUnconfirmed = define("alertmanager_unconfirmed_notifications", "alertmanager.unconfirmed-notifications", "send", "",
		"What to do with a notification whose sender died before it knew whether it arrived: send repeats it, to webhooks and SNS FIFO topics with the same id, drop does not.", "alertmanager").
		oneOf("send", "drop")
	AlertmanagerNotificationRate = define("alertmanager_notification_rate_limit", "alertmanager.notification-rate-limit", 0.0, "notifications per second",
		"Notifications that a tenant may send through each kind of receiver. 0: no limit; below zero: none.", "alertmanager").signed()
	AlertmanagerNotificationRates = structured(Row{Name: "alertmanager_notification_rate_limit_per_integration", Flag: "alertmanager.notification-rate-limit-per-integration", Default: new(Rates),
		Doc: "alertmanager_notification_rate_limit for single kinds of receivers: {webhook: 10, email: -1}.",
		By:  []string{"alertmanager"}}, readRates)
	AlertmanagerMaxConfigSize = define("alertmanager_max_config_size_bytes", "alertmanager.max-config-size-bytes", 0, "bytes",
		"Largest configuration. 0: no limit.", "alertmanager")
	AlertmanagerMaxTemplates = define("alertmanager_max_templates_count", "alertmanager.max-templates-count", 0, "templates",
		"Most templates of a configuration. 0: no limit.", "alertmanager")
	AlertmanagerMaxTemplateSize = define("alertmanager_max_template_size_bytes", "alertmanager.max-template-size-bytes", 0, "bytes",
		"Largest template of a configuration. 0: no limit.", "alertmanager")
	AlertmanagerMaxRoutes = define("alertmanager_max_routes_count", "alertmanager.max-routes-count", 0, "routes",
		"Most routes of a configuration, the first one included. 0: no limit.", "alertmanager")
	AlertmanagerMaxInhibitRules = define("alertmanager_max_inhibit_rules_count", "alertmanager.max-inhibit-rules-count", 0, "rules",
		"Most inhibition rules of a configuration. 0: no limit.", "alertmanager")
	AlertmanagerMaxRepeatInterval = define("alertmanager_max_repeat_interval", "alertmanager.max-repeat-interval", time.Duration(0), "",
		"Longest repeat_interval; a route that asks for more gets this. 0: no limit.", "alertmanager")
	AlertmanagerMaxSilences = define("alertmanager_max_silences_count", "alertmanager.max-silences-count", 0, "silences",
		"Most silences, expired ones included. 0: no limit.", "alertmanager")
	AlertmanagerMaxSilenceSize = define("alertmanager_max_silence_size_bytes", "alertmanager.max-silence-size-bytes", 0, "bytes",
		"Largest silence. 0: no limit.", "alertmanager")
	AlertmanagerMaxGroups = define("alertmanager_max_dispatcher_aggregation_groups", "alertmanager.max-dispatcher-aggregation-groups", 0, "groups",
		"Most alert groups; there are no notifications for alerts that would need another one. 0: no limit.", "alertmanager")
	AlertmanagerMaxAlerts = define("alertmanager_max_alerts_count", "alertmanager.max-alerts-count", 0, "alerts",
		"Most alerts that are kept; further ones are dropped. 0: no limit.", "alertmanager")
	AlertmanagerMaxAlertsSize = define("alertmanager_max_alerts_size_bytes", "alertmanager.max-alerts-size-bytes", 0, "bytes",
		"Most bytes of labels, annotations and URLs of all alerts that are kept; further ones are dropped. 0: no limit.", "alertmanager")
	AlertmanagerMaxGrafanaConfigSize = define("alertmanager_max_grafana_config_size_bytes", "alertmanager.max-grafana-config-size-bytes", 0, "bytes",
		"Largest Grafana configuration stored here. 0: no limit.", "alertmanager")
	AlertmanagerMaxGrafanaStateSize = define("alertmanager_max_grafana_state_size_bytes", "alertmanager.max-grafana-state-size-bytes", 0, "bytes",
		"Largest Grafana state stored here. 0: no limit.", "alertmanager")
)

// Rates are notifications per second by kind of receiver.
type Rates struct{ list []integrationRate }

type integrationRate struct {
	name string
	rate float64
}

// Of returns the rate of a kind of receiver; ok is false if none is set.
func (r *Rates) Of(integration string) (rate float64, ok bool) {
	for _, x := range r.list {
		if x.name == integration {
			return x.rate, true
		}
	}
	return 0, false
}

// Node is part of Structured.
func (r *Rates) Node() *yaml.Node {
	out := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	for _, x := range r.list {
		out.Content = append(out.Content, node(x.name), node(x.rate))
	}
	return out
}

// integrations are the kinds of receivers, as upstream names them.
func integrations() []string {
	return []string{"webhook", "email", "pagerduty", "opsgenie", "wechat", "slack", "victorops", "pushover", "sns", "telegram", "discord",
		"webex", "msteams", "msteamsv2", "jira", "incidentio", "rocketchat", "mattermost"}
}

// readRates reads a mapping of kinds of receivers to numbers.
func readRates(doc *strict.Doc, n *yaml.Node, path string) (*Rates, bool) {
	out, ok := &Rates{}, true
	if n != nil && n.Kind != yaml.MappingNode && n.Kind != yaml.AliasNode && !strict.IsNull(n) {
		doc.Problems.Add(doc.Where(n.Line), "%s: wants kinds of receivers with rates below it, but has %s", path, strict.Shape(n))
		return nil, false
	}
	for _, e := range doc.Entries(n, path) {
		text, good := doc.Text(e.Value, path+"."+e.Key, "a number")
		if !good {
			ok = false
			continue
		}
		x, err := parseRate(e.Key, text)
		if err != nil {
			doc.Problems.Add(doc.Where(e.Line), "%s.%s: %v", path, e.Key, err)
			ok = false
			continue
		}
		out.list = append(out.list, x)
	}
	return out, ok
}

func parseRate(name, text string) (integrationRate, error) {
	if !slices.Contains(integrations(), name) {
		return integrationRate{}, fmt.Errorf("%q is no kind of receiver", name)
	}
	rate, err := config.ParseFloat(text)
	return integrationRate{name, rate}, err
}
