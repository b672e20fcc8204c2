package control

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// resourceARN is what follows /tags/: escaped by the SDKs, as it is in Amazon's guide.
func (x *call) resourceARN() (string, error) {
	_, rest, _ := strings.Cut(x.r.URL.EscapedPath(), "/tags/")
	text, err := url.PathUnescape(rest)
	if err != nil {
		return "", unreadable("the path is not well escaped")
	}
	return text, nil
}

// tagged is a resource that has tags: a workspace, one of its rule files, or a scraper.
type tagged struct {
	arn       string
	workspace string // empty: it is a scraper
	scraper   string
	namespace *kept // nil: the workspace itself
}

// tagged resolves the ARN of the path to a resource of the caller.
func (c *Control) tagged(x *call) (tagged, error) {
	arn, err := x.resourceARN()
	if err != nil {
		return tagged{}, err
	}
	m := regexp.MustCompile(`^arn:aws[-a-z]*:aps:[-a-z0-9]*:([0-9]{12}):(workspace|rulegroupsnamespace|scraper)/([^/]+)(?:/(.+))?$`).FindStringSubmatch(arn)
	if m == nil || (m[2] == namespaceKind) != (m[4] != "") {
		return tagged{}, invalid("resourceArn", "resourceArn "+arn+" names no workspace, no rule groups namespace and no scraper")
	}
	if m[1] != x.account {
		return tagged{}, missing(m[2], arn)
	}
	if m[2] == scraperKind {
		if _, err := c.ownScraper(x.r.Context(), x, m[3]); err != nil {
			return tagged{}, err
		}
		return tagged{arn: arn, scraper: m[3]}, nil
	}
	t := tagged{arn: arn, workspace: m[3]}
	if _, err := c.own(x.r.Context(), x, t.workspace); err != nil {
		return tagged{}, missing(m[2], arn)
	}
	if m[2] == workspaceKind {
		return t, nil
	}
	k, err := c.namespace(t.workspace, m[4])
	if err != nil {
		return tagged{}, err
	}
	k.id = arn // as errors name it
	t.namespace = &k
	return t, nil
}

// retag lets change edit the tags of t, which may be nil.
func (c *Control) retag(ctx context.Context, t tagged, change func(tags map[string]string) map[string]string) error {
	edit := func(tags *map[string]string) error {
		next := change(maps.Clone(*tags))
		if err := checkTags(next); err != nil {
			return err
		}
		*tags = next
		return nil
	}
	if t.namespace != nil {
		return c.retagText(ctx, *t.namespace, edit)
	}
	if t.scraper != "" {
		_, err := update(ctx, c, scraperKey(t.scraper), func(d *scraperDoc, exists bool) (bool, error) {
			if !exists || d.State != active {
				return false, missing(scraperKind, t.arn)
			}
			return true, edit(&d.Tags)
		})
		return err
	}
	_, err := update(ctx, c, workspaceKey(t.workspace), func(w *workspace, exists bool) (bool, error) {
		if !exists || w.State != active {
			return false, missing(workspaceKind, t.arn)
		}
		return true, edit(&w.Tags)
	})
	c.seen.forget(t.workspace)
	return err
}

func tagResource(c *Control, x *call) (reply, error) {
	var in struct {
		Tags map[string]string `json:"tags"`
	}
	if err := x.decode(&in); err != nil {
		return reply{}, err
	}
	if in.Tags == nil {
		return reply{}, invalid("tags", "tags is missing")
	}
	if err := checkTags(in.Tags); err != nil {
		return reply{}, err
	}
	t, err := c.tagged(x)
	if err != nil {
		return reply{}, err
	}
	err = c.retag(x.r.Context(), t, func(tags map[string]string) map[string]string {
		if tags == nil {
			tags = map[string]string{}
		}
		maps.Copy(tags, in.Tags)
		return tags
	})
	return reply{http.StatusOK, map[string]any{}}, err
}

func untagResource(c *Control, x *call) (reply, error) {
	keys := x.query["tagKeys"]
	if len(keys) == 0 {
		return reply{}, invalid("tagKeys", "tagKeys is missing")
	}
	t, err := c.tagged(x)
	if err != nil {
		return reply{}, err
	}
	err = c.retag(x.r.Context(), t, func(tags map[string]string) map[string]string {
		for _, k := range keys {
			delete(tags, k)
		}
		return tags
	})
	return reply{http.StatusOK, map[string]any{}}, err
}

func listTags(c *Control, x *call) (reply, error) {
	t, err := c.tagged(x)
	if err != nil {
		return reply{}, err
	}
	tags, err := c.tagsOf(x, t)
	return reply{http.StatusOK, map[string]any{"tags": orNone(tags)}}, err
}

func (c *Control) tagsOf(x *call, t tagged) (map[string]string, error) {
	ctx := x.r.Context()
	switch {
	case t.namespace != nil:
		_, n, err := c.describe(ctx, *t.namespace)
		if err != nil {
			return nil, err
		}
		return n.Tags, nil
	case t.scraper != "":
		d, err := c.ownScraper(ctx, x, t.scraper)
		if err != nil {
			return nil, err
		}
		return d.Tags, nil
	}
	w, err := c.own(ctx, x, t.workspace)
	if err != nil {
		return nil, err
	}
	return w.Tags, nil
}
