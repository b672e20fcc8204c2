package control

import (
	"context"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

const scraperKind = "scraper"

// scraperDoc is all that is known of a scraper.
type scraperDoc struct {
	ID          string            `json:"id"`
	Account     string            `json:"account"`
	Alias       string            `json:"alias,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Config      []byte            `json:"configuration"`
	Source      json.RawMessage   `json:"source"`
	Destination destinationOf     `json:"destination"`
	Roles       *roles            `json:"roles,omitempty"`
	State       string            `json:"state"` // active, deleting or deleted
	Revision    string            `json:"revision"`
	Applied     applied           `json:"applied,omitzero"`
	Logging     *scraperLogging   `json:"logging,omitempty"`
	Created     time.Time         `json:"created"`
	Modified    time.Time         `json:"modified"`
	Tokens      tokens            `json:"tokens,omitempty"`
}

// applied is what the process that runs a scraper made of its configuration.
type applied struct {
	Revision string `json:"revision,omitempty"`
	Error    string `json:"error,omitempty"`
	Ran      bool   `json:"ran,omitempty"` // some revision ran
}

// status is the state in the words of the API.
func (d *scraperDoc) status() (code, reason string) {
	begun := "CREAT"
	if d.Applied.Ran {
		begun = "UPDAT"
	}
	switch {
	case d.State == deleting:
		return deleting, ""
	case d.Applied.Revision != d.Revision:
		return begun + "ING", ""
	case d.Applied.Error == "":
		return active, ""
	case d.Applied.Ran:
		return "UPDATE_FAILED", d.Applied.Error
	}
	return "CREATION_FAILED", d.Applied.Error
}

func scraperKey(id string) string { return scrapersPrefix + id + ".json" }

// destinationOf is where samples go: exactly one member is given.
type destinationOf struct {
	Workspace *workspaceDestination `json:"ampConfiguration,omitempty"`
	Other     *json.RawMessage      `json:"cloudWatchConfiguration,omitempty"`
}

type workspaceDestination struct {
	ARN string `json:"workspaceArn"`
}

type roles struct {
	Source string `json:"sourceRoleArn,omitempty"`
	Target string `json:"targetRoleArn,omitempty"`
}

// scraperInput is what creating and updating take.
type scraperInput struct {
	Alias   *string `json:"alias"`
	Scraped *struct {
		Blob []byte `json:"configurationBlob"`
	} `json:"scrapeConfiguration"`
	Source      json.RawMessage   `json:"source"`
	Destination *destinationOf    `json:"destination"`
	Roles       *roles            `json:"roleConfiguration"`
	Exporters   []json.RawMessage `json:"exporters"`
	Tags        map[string]string `json:"tags"`
	Token       string            `json:"clientToken"`
}

const nameExpr = `[0-9A-Za-z][-.0-9A-Z_a-z]*`

// check verifies what is given.
func (c *Control) checkScraper(ctx context.Context, x *call, in *scraperInput) error {
	if in.Alias != nil {
		if err := pattern("alias", *in.Alias, nameExpr, 1, 100); err != nil {
			return err
		}
	}
	if len(in.Exporters) > 0 {
		return invalid("exporters", "exporters are not served here; scrape the endpoint of an exporter of your own")
	}
	if in.Roles != nil {
		for field, arn := range map[string]string{"sourceRoleArn": in.Roles.Source, "targetRoleArn": in.Roles.Target} {
			if arn == "" {
				continue
			}
			if err := pattern(field, arn, `arn:aws[-a-z]*:iam::[0-9]{12}:role/.+`, 1, 2048); err != nil {
				return err
			}
		}
	}
	if err := checkTags(in.Tags); err != nil {
		return err
	}
	if err := checkToken(in.Token); err != nil {
		return err
	}
	if in.Destination != nil {
		if err := c.checkDestination(ctx, x, in.Destination); err != nil {
			return err
		}
	}
	if in.Scraped != nil {
		return c.checkScrapeConfig(in.Scraped.Blob)
	}
	return nil
}

func (c *Control) checkScrapeConfig(blob []byte) error {
	switch {
	case len(blob) == 0:
		return invalid("scrapeConfiguration", "configurationBlob is empty")
	case len(blob) > maxFile:
		return invalid("scrapeConfiguration", "configurationBlob is larger than 1 MB")
	}
	if err := c.deps.CheckScrape(plain(blob)); err != nil {
		if k := errs.KindOf(err); k != errs.Invalid && k != errs.Unprocessable {
			return err
		}
		return invalid("scrapeConfiguration", err.Error())
	}
	return nil
}

// checkDestination makes sure that samples go to a workspace of the caller, who else could write into
// that of another.
func (c *Control) checkDestination(ctx context.Context, x *call, d *destinationOf) error {
	if d.Workspace == nil {
		return invalid("destination", "destination must have ampConfiguration; others are not served here")
	}
	m := regexp.MustCompile(`^arn:aws[-a-z]*:aps:[-a-z0-9]+:([0-9]{12}):workspace/([^/]+)$`).FindStringSubmatch(d.Workspace.ARN)
	if m == nil || d.Other != nil {
		return invalid("destination", "workspaceArn "+d.Workspace.ARN+" names no workspace, or there is more than one destination")
	}
	if m[1] != x.account {
		return missing(workspaceKind, m[2])
	}
	w, err := c.own(ctx, x, m[2])
	if err == nil && w.State != active {
		err = conflict(workspaceKind, m[2], "the workspace is being deleted")
	}
	return err
}

// workspaceID is the workspace that samples go to.
func (d *scraperDoc) workspaceID() string {
	if d.Destination.Workspace == nil {
		return ""
	}
	arn := d.Destination.Workspace.ARN
	if i := slices.Index([]byte(arn), '/'); i >= 0 {
		return arn[i+1:]
	}
	return ""
}

// checkSource checks from where targets are to be reached. It is kept and described: a scraper reaches
// what the process that runs it reaches.
func checkSource(raw json.RawMessage) error {
	var in struct {
		EKS *struct {
			Cluster string    `json:"clusterArn"`
			Groups  *[]string `json:"securityGroupIds"`
			Subnets []string  `json:"subnetIds"`
		} `json:"eksConfiguration"`
		VPC *struct {
			Groups  []string `json:"securityGroupIds"`
			Subnets []string `json:"subnetIds"`
		} `json:"vpcConfiguration"`
	}
	if err := json.Unmarshal(raw, &in); err != nil || (in.EKS == nil) == (in.VPC == nil) {
		return invalid("source", "source must have exactly one of eksConfiguration and vpcConfiguration")
	}
	if in.VPC != nil {
		if err := checkList("securityGroupIds", in.VPC.Groups, `sg-[0-9a-z]+`); err != nil {
			return err
		}
		return checkList("subnetIds", in.VPC.Subnets, `subnet-[0-9a-z]+`)
	}
	if err := pattern("clusterArn", in.EKS.Cluster, `arn:aws[-a-z]*:eks:[-a-z0-9]+:[0-9]{12}:cluster/.+`, 1, 2048); err != nil {
		return err
	}
	if in.EKS.Groups != nil {
		if err := checkList("securityGroupIds", *in.EKS.Groups, `sg-[0-9a-z]+`); err != nil {
			return err
		}
	}
	return checkList("subnetIds", in.EKS.Subnets, `subnet-[0-9a-z]+`)
}

func checkList(field string, ids []string, expr string) error {
	if len(ids) < 1 || len(ids) > 5 {
		return invalid(field, field+" must have 1 to 5 elements")
	}
	for _, id := range ids {
		if err := pattern(field, id, expr, 1, 255); err != nil {
			return err
		}
	}
	return nil
}

type scraperAnswer struct {
	ARN    string            `json:"arn"`
	ID     string            `json:"scraperId"`
	Status status            `json:"status"`
	Tags   map[string]string `json:"tags"`
}

const scraperQuota = "scrapers-per-account"

func createScraper(c *Control, x *call) (reply, error) {
	ctx := x.r.Context()
	var in scraperInput
	if err := x.decode(&in); err != nil {
		return reply{}, err
	}
	if in.Tags == nil {
		in.Tags = map[string]string{}
	}
	switch {
	case in.Scraped == nil:
		return reply{}, invalid("scrapeConfiguration", "scrapeConfiguration is missing")
	case in.Source == nil:
		return reply{}, invalid("source", "source is missing")
	case in.Destination == nil:
		return reply{}, invalid("destination", "destination is missing")
	}
	if err := checkSource(in.Source); err != nil {
		return reply{}, err
	}
	if err := c.checkScraper(ctx, x, &in); err != nil {
		return reply{}, err
	}
	out := scraperAnswer{Tags: in.Tags, Status: status{Code: "CREATING"}}
	made, ok, err := c.admit(ctx, x, &newcomer{
		operation: "CreateScraper", token: in.Token, hash: hashOf(in.Alias, in.Scraped, in.Source, in.Destination, in.Roles, in.Tags),
		kind: scraperKind, prefix: "s-", among: func(a *account) *[]entry { return &a.Scrapers },
		most: c.cfg.MaxScrapers, full: quota(scraperKind, "", scraperQuota, "Limit exceeded. Maximum scrapers per account."),
		answer: &out, name: func(id, arn string) { out.ID, out.ARN = id, arn }, id: func() string { return out.ID },
	})
	if err != nil {
		return reply{}, err
	}
	if ok { // a call that is repeated may find that the first one did not come this far
		_, err = update(ctx, c, scraperKey(out.ID), func(d *scraperDoc, exists bool) (bool, error) {
			if exists {
				return false, nil
			}
			*d = scraperDoc{ID: out.ID, Account: x.account, Tags: in.Tags, Config: in.Scraped.Blob, Source: in.Source, Destination: *in.Destination,
				Roles: in.Roles, State: active, Revision: uuid.NewString(), Created: made.At, Modified: made.At}
			if in.Alias != nil {
				d.Alias = *in.Alias
			}
			return true, nil
		})
		c.scrapersChanged()
	}
	return reply{http.StatusAccepted, out}, err
}

// scrapersChanged tells the scrapers of this process that there is something to do.
func (c *Control) scrapersChanged() {
	if c.deps.ScrapersChanged != nil {
		c.deps.ScrapersChanged()
	}
}

// ownScraper returns a scraper of the caller. Errors: NotFound.
func (c *Control) ownScraper(ctx context.Context, x *call, id string) (*scraperDoc, error) {
	if err := pattern("scraperId", id, nameExpr, 1, 64); err != nil {
		return nil, err
	}
	var d scraperDoc
	v, err := c.read(ctx, scraperKey(id), &d)
	if err != nil {
		return nil, err
	}
	if v == "" || d.Account != x.account || d.State == deleted {
		return nil, missing(scraperKind, id)
	}
	return &d, nil
}

// changeScraper edits a scraper of the caller once for each client token: edit returns the answer.
func (c *Control) changeScraper(x *call, operation, clientToken, hash string, edit func(d *scraperDoc) (any, error)) (json.RawMessage, error) {
	id := x.segment(1)
	if err := checkToken(clientToken); err != nil {
		return nil, err
	}
	if err := pattern("scraperId", id, nameExpr, 1, 64); err != nil {
		return nil, err
	}
	var out json.RawMessage
	_, err := update(x.r.Context(), c, scraperKey(id), func(d *scraperDoc, exists bool) (bool, error) {
		if !exists || d.Account != x.account {
			return false, missing(scraperKind, id)
		}
		old, again, err := d.Tokens.find(clientToken, operation, hash)
		if err != nil {
			return false, conflict(scraperKind, id, err.Error())
		}
		if again { // also of a scraper that was deleted since
			out = old
			return false, nil
		}
		switch d.State {
		case deleted:
			return false, missing(scraperKind, id)
		case deleting:
			return false, conflict(scraperKind, id, "the scraper is being deleted")
		}
		a, err := edit(d)
		if err != nil {
			return false, err
		}
		if out, err = json.Marshal(a); err != nil {
			return false, err
		}
		d.Tokens.keep(clientToken, token{operation, hash, out, c.now()})
		return true, nil
	})
	return out, err
}

func updateScraper(c *Control, x *call) (reply, error) {
	var in scraperInput
	if err := x.decode(&in); err != nil {
		return reply{}, err
	}
	in.Tags, in.Source = nil, nil
	id := x.segment(1)
	if _, err := c.ownScraper(x.r.Context(), x, id); err != nil {
		return reply{}, err
	}
	if err := c.checkScraper(x.r.Context(), x, &in); err != nil {
		return reply{}, err
	}
	raw, err := c.changeScraper(x, "UpdateScraper", in.Token, hashOf(id, in.Alias, in.Scraped, in.Destination, in.Roles), func(d *scraperDoc) (any, error) {
		if in.Alias != nil {
			d.Alias = *in.Alias
		}
		if in.Roles != nil {
			d.Roles = in.Roles
		}
		if in.Scraped != nil {
			d.Config = in.Scraped.Blob
		}
		if in.Destination != nil {
			d.Destination = *in.Destination
		}
		if in.Scraped != nil || in.Destination != nil {
			d.Revision = uuid.NewString()
		}
		d.Modified = c.now()
		return scraperAnswer{c.arn(x.account, scraperKind, d.ID), d.ID, status{Code: "UPDATING"}, orNone(d.Tags)}, nil
	})
	c.scrapersChanged()
	return reply{http.StatusAccepted, raw}, err
}

func orNone(tags map[string]string) map[string]string {
	if tags == nil {
		return map[string]string{}
	}
	return tags
}

// deleteScraper takes a scraper out of use. Its document stays for a while with the client tokens.
func deleteScraper(c *Control, x *call) (reply, error) {
	id := x.segment(1)
	raw, err := c.changeScraper(x, "DeleteScraper", x.query.Get("clientToken"), hashOf(id), func(d *scraperDoc) (any, error) {
		d.State, d.Modified = deleting, c.now()
		return map[string]any{"scraperId": id, "status": status{Code: deleting}}, nil
	})
	if err == nil {
		err = c.forgetScraper(x.r.Context(), x.account, id)
	}
	c.scrapersChanged()
	return reply{http.StatusAccepted, raw}, err
}

// forgetScraper ends a deletion. Each step may be made again.
func (c *Control) forgetScraper(ctx context.Context, owner, id string) error {
	_, err := update(ctx, c, accountKey(owner), func(a *account, exists bool) (bool, error) {
		n := len(a.Scrapers)
		a.Scrapers = slices.DeleteFunc(a.Scrapers, func(e entry) bool { return e.ID == id })
		return exists && len(a.Scrapers) < n, nil
	})
	if err != nil {
		return err
	}
	_, err = update(ctx, c, scraperKey(id), func(d *scraperDoc, exists bool) (bool, error) {
		if !exists || d.State != deleting {
			return false, nil
		}
		*d = scraperDoc{ID: d.ID, Account: d.Account, State: deleted, Created: d.Created, Modified: d.Modified, Tokens: d.Tokens}
		return true, nil
	})
	return err
}
