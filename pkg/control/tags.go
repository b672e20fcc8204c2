package control

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
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

// tagged is a resource that has tags: a workspace, or one of its rule files.
type tagged struct {
	arn, workspace string
	namespace      *kept // nil: the workspace itself
}

// tagged resolves the ARN of the path to a resource of the caller.
func (c *Control) tagged(x *call) (tagged, error) {
	arn, err := x.resourceARN()
	if err != nil {
		return tagged{}, err
	}
	m := regexp.MustCompile(`^arn:aws[-a-z]*:aps:[-a-z0-9]*:([0-9]{12}):(workspace|rulegroupsnamespace)/([^/]+)(?:/(.+))?$`).FindStringSubmatch(arn)
	if m == nil || (m[2] == workspaceKind) != (m[4] == "") {
		return tagged{}, invalid("resourceArn", "resourceArn "+arn+" names no workspace and no rule groups namespace")
	}
	t := tagged{arn: arn, workspace: m[3]}
	if m[1] != x.account {
		return tagged{}, missing(m[2], arn)
	}
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
	if _, err := c.deps.Documents.Get(x.r.Context(), k.key); err != nil {
		if errs.KindOf(err) == errs.NotFound {
			err = missing(namespaceKind, arn)
		}
		return tagged{}, err
	}
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
		_, err := update(ctx, c, t.namespace.companion(), func(m *companion, _ bool) (bool, error) { return true, edit(&m.Tags) })
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
	var tags map[string]string
	if t.namespace != nil {
		var m companion
		_, err = c.read(x.r.Context(), t.namespace.companion(), &m)
		tags = m.Tags
	} else {
		var w *workspace
		if w, err = c.own(x.r.Context(), x, t.workspace); err == nil {
			tags = w.Tags
		}
	}
	if tags == nil {
		tags = map[string]string{}
	}
	return reply{http.StatusOK, map[string]any{"tags": tags}}, err
}
