package control

import (
	"context"
	_ "embed"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/grafana/dskit/concurrency"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

type scraperSummary struct {
	Alias       string            `json:"alias,omitempty"`
	ARN         string            `json:"arn"`
	CreatedAt   epoch             `json:"createdAt"`
	Destination destinationOf     `json:"destination"`
	ModifiedAt  epoch             `json:"lastModifiedAt"`
	Role        string            `json:"roleArn"`
	Roles       *roles            `json:"roleConfiguration,omitempty"`
	ID          string            `json:"scraperId"`
	Source      json.RawMessage   `json:"source"`
	Status      status            `json:"status"`
	Reason      string            `json:"statusReason,omitempty"`
	Tags        map[string]string `json:"tags"`
}

// scraperSummary describes d. No role is assumed to scrape, but clients expect the name of one.
func (c *Control) scraperSummary(d *scraperDoc) scraperSummary {
	code, reason := d.status()
	return scraperSummary{
		Alias: d.Alias, ARN: c.arn(d.Account, scraperKind, d.ID), CreatedAt: epoch(d.Created), ModifiedAt: epoch(d.Modified), Destination: d.Destination,
		Role: "arn:aws:iam::" + d.Account + ":role/aws-service-role/scraper.aps.amazonaws.com/AWSServiceRoleForAmazonPrometheusScraper_" + d.ID,
		ID:   d.ID, Source: d.Source, Status: status{Code: code}, Reason: shortened(reason), Tags: orNone(d.Tags), Roles: d.Roles,
	}
}

func describeScraper(c *Control, x *call) (reply, error) {
	d, err := c.ownScraper(x.r.Context(), x, x.segment(1))
	if err != nil {
		return reply{}, err
	}
	out := struct {
		scraperSummary
		Scraped map[string][]byte `json:"scrapeConfiguration"`
	}{c.scraperSummary(d), map[string][]byte{"configurationBlob": d.Config}}
	if _, err := c.own(x.r.Context(), x, d.workspaceID()); err != nil && errs.KindOf(err) == errs.NotFound {
		out.Reason = "the workspace of the destination does not exist, and nothing is scraped"
	}
	return reply{http.StatusOK, map[string]any{scraperKind: out}}, nil
}

// filterKeys are the names by which scrapers are filtered, with what each compares.
func filterKeys() map[string]func(scraperSummary) string {
	return map[string]func(scraperSummary) string{
		"status": func(s scraperSummary) string { return s.Status.Code },
		"alias":  func(s scraperSummary) string { return s.Alias },
		"sourceArn": func(s scraperSummary) string {
			var in struct {
				EKS struct {
					Cluster string `json:"clusterArn"`
				} `json:"eksConfiguration"`
			}
			if json.Unmarshal(s.Source, &in) != nil {
				return ""
			}
			return in.EKS.Cluster
		},
		"destinationArn": func(s scraperSummary) string {
			if s.Destination.Workspace == nil {
				return ""
			}
			return s.Destination.Workspace.ARN
		},
	}
}

const (
	maxFilterValues = 20
	maxFilterValue  = 256
)

// scraperFilters reads the filters: any of the values of a key, and all keys.
func (x *call) scraperFilters() (map[string][]string, error) {
	out := map[string][]string{}
	known := filterKeys()
	for key, values := range x.query {
		if key == "nextToken" || key == "maxResults" {
			continue
		}
		if known[key] == nil {
			return nil, invalid("filters", "filters have the keys status, sourceArn, destinationArn and alias, not "+key)
		}
		if len(values) > maxFilterValues || slices.ContainsFunc(values, func(v string) bool { return v == "" || len(v) > maxFilterValue }) {
			return nil, invalid("filters", "filter "+key+" must have 1 to 20 values of 1 to 256 characters")
		}
		out[key] = values
	}
	return out, nil
}

func listScrapers(c *Control, x *call) (reply, error) {
	filters, err := x.scraperFilters()
	if err != nil {
		return reply{}, err
	}
	p, err := x.page("ListScrapers", filters)
	if err != nil {
		return reply{}, err
	}
	var a account
	if _, err := c.read(x.r.Context(), accountKey(x.account), &a); err != nil {
		return reply{}, err
	}
	i := slices.IndexFunc(a.Scrapers, func(e entry) bool { return p.after(e.position()) })
	if i < 0 {
		i = len(a.Scrapers)
	}
	found := []scraperSummary{}
	next := ""
	var last position
	for ; i < len(a.Scrapers) && next == ""; i += readAhead {
		batch := a.Scrapers[i:min(i+readAhead, len(a.Scrapers))]
		ds := make([]*scraperDoc, len(batch))
		err := concurrency.ForEachJob(x.r.Context(), len(batch), readAhead, func(ctx context.Context, n int) (err error) {
			ds[n], err = c.ownScraper(ctx, x, batch[n].ID)
			if errs.KindOf(err) == errs.NotFound {
				err = nil
			}
			return err
		})
		if err != nil {
			return reply{}, err
		}
		for n, d := range ds {
			if d == nil {
				continue
			}
			s := c.scraperSummary(d)
			if !s.passes(filters) {
				continue
			}
			if len(found) == p.size {
				next = p.token(last)
				break
			}
			found, last = append(found, s), batch[n].position()
		}
	}
	out := map[string]any{"scrapers": found}
	if next != "" {
		out["nextToken"] = next
	}
	return reply{http.StatusOK, out}, nil
}

func (s scraperSummary) passes(filters map[string][]string) bool {
	known := filterKeys()
	for key, values := range filters {
		if !slices.Contains(values, known[key](s)) {
			return false
		}
	}
	return true
}

//go:embed scrape.yaml
var defaultScrape []byte

func defaultScraperConfiguration(*Control, *call) (reply, error) {
	return reply{http.StatusOK, map[string]any{"configuration": defaultScrape}}, nil
}

// scraperLogging says which parts of a scraper tell in the log what they do.
type scraperLogging struct {
	LogGroup   string             `json:"log_group"`
	Components []scraperComponent `json:"components"`
	Modified   time.Time          `json:"modified"`
}

type scraperComponent struct {
	Type   string           `json:"type"`
	Config *json.RawMessage `json:"config,omitempty"`
}

const scraperLoggingKind = "scraperloggingconfiguration"

// components are the parts of a scraper that log.
func components() []string { return []string{"SERVICE_DISCOVERY", "COLLECTOR", "EXPORTER"} }

func putScraperLogging(c *Control, x *call) (reply, error) {
	var in struct {
		Destination struct {
			CloudWatch *cloudWatch `json:"cloudWatchLogs"`
		} `json:"loggingDestination"`
		Components []scraperComponent `json:"scraperComponents"`
	}
	if err := x.decode(&in); err != nil {
		return reply{}, err
	}
	if in.Destination.CloudWatch == nil {
		return reply{}, invalid("loggingDestination", "loggingDestination must have cloudWatchLogs")
	}
	if err := checkLogGroup("loggingDestination", in.Destination.CloudWatch.LogGroup); err != nil {
		return reply{}, err
	}
	for i, k := range in.Components {
		if !slices.Contains(components(), k.Type) {
			return reply{}, invalid("scraperComponents", "the type of a component is one of "+strings.Join(components(), ", "))
		}
		if slices.ContainsFunc(in.Components[:i], func(o scraperComponent) bool { return o.Type == k.Type }) {
			return reply{}, invalid("scraperComponents", k.Type+" is named twice")
		}
	}
	if len(in.Components) == 0 {
		for _, t := range components() {
			in.Components = append(in.Components, scraperComponent{Type: t})
		}
	}
	state := "UPDATING"
	_, err := c.changeScraper(x, "", "", "", func(d *scraperDoc) (any, error) {
		if d.Logging == nil {
			state = "CREATING"
		}
		d.Logging = &scraperLogging{in.Destination.CloudWatch.LogGroup, in.Components, c.now()}
		return nil, nil
	})
	c.scrapersChanged()
	return accepted(state), err
}

func describeScraperLogging(c *Control, x *call) (reply, error) {
	d, err := c.ownScraper(x.r.Context(), x, x.segment(1))
	if err != nil {
		return reply{}, err
	}
	if d.Logging == nil {
		return reply{}, missing(scraperLoggingKind, d.ID)
	}
	return reply{http.StatusOK, map[string]any{
		"status": status{Code: active}, "scraperId": d.ID, "modifiedAt": epoch(d.Logging.Modified), "scraperComponents": d.Logging.Components,
		"loggingDestination": map[string]any{"cloudWatchLogs": cloudWatch{d.Logging.LogGroup}},
	}}, nil
}

func deleteScraperLogging(c *Control, x *call) (reply, error) {
	id, clientToken := x.segment(1), x.query.Get("clientToken")
	_, err := c.changeScraper(x, "DeleteScraperLoggingConfiguration", clientToken, hashOf(id), func(d *scraperDoc) (any, error) {
		if d.Logging == nil {
			return nil, missing(scraperLoggingKind, id)
		}
		d.Logging = nil
		return nil, nil
	})
	c.scrapersChanged()
	return reply{http.StatusAccepted, nil}, err
}
