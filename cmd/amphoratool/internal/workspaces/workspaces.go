// Package workspaces owns the commands about workspaces of the control plane.
package workspaces

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/client"
)

// workspace is what the control plane says of one.
type workspace struct {
	ID       string            `json:"workspaceId" yaml:"workspaceId"`
	ARN      string            `json:"arn" yaml:"arn"`
	Alias    string            `json:"alias,omitempty" yaml:"alias,omitempty"`
	Created  float64           `json:"createdAt,omitempty" yaml:"createdAt,omitempty"` // seconds
	Endpoint string            `json:"prometheusEndpoint,omitempty" yaml:"prometheusEndpoint,omitempty"`
	Tags     map[string]string `json:"tags,omitempty" yaml:"tags,omitempty"`
	Status   struct {
		Code string `json:"statusCode" yaml:"statusCode"`
	} `json:"status" yaml:"status"`
}

// command is one invocation.
type command struct {
	*cli.Env
	server            client.Client
	format, alias, id string
	tags              map[string]string
}

// Register adds the family `workspace`.
func Register(app *kingpin.Application, e *cli.Env) {
	c := &command{Env: e, tags: map[string]string{}}
	family := app.Command("workspace", "Make and delete workspaces. Calls are signed with an access key.")
	c.server.Declare(family, e)
	cli.Format(family, &c.format)

	create := family.Command("create", "Make a workspace.")
	create.Flag("alias", "Its name for people.").StringVar(&c.alias)
	create.Flag("tag", "name=value; may repeat.").StringMapVar(&c.tags)
	e.Do(create, c.open(c.create))
	list := family.Command("list", "Workspaces of the account.")
	list.Flag("alias", "Only those whose alias begins so.").StringVar(&c.alias)
	e.Do(list, c.open(c.list))
	describe := family.Command("describe", "One workspace.")
	describe.Arg("workspace", "Its id.").Required().StringVar(&c.id)
	e.Do(describe, c.open(c.describe))
	rename := family.Command("rename", "Give a workspace another alias.")
	rename.Arg("workspace", "Its id.").Required().StringVar(&c.id)
	rename.Arg("alias", "The alias.").Required().StringVar(&c.alias)
	e.Do(rename, c.open(c.rename))
	drop := family.Command("delete", "Delete a workspace.")
	drop.Arg("workspace", "Its id.").Required().StringVar(&c.id)
	e.Do(drop, c.open(c.drop))
}

// defaultRegion is what auth.regions begins with unless it is set.
const defaultRegion = "us-east-1"

func (c *command) open(do func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		c.server.Sign(defaultRegion)
		if err := c.server.Open(); err != nil {
			return err
		}
		return do(ctx)
	}
}

// call asks the control plane.
func (c *command) call(ctx context.Context, method, path string, body, into any) error {
	call := client.Call{Method: method, Path: path}
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return err
		}
		call.Body, call.Type = data, "application/json"
	}
	answer, err := c.server.Do(ctx, call)
	if err != nil || into == nil {
		return err
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}

func (c *command) print(list []workspace) error {
	rows := make([][]string, 0, len(list))
	for _, w := range list {
		var tags []string
		for _, name := range slices.Sorted(maps.Keys(w.Tags)) {
			tags = append(tags, name+"="+w.Tags[name])
		}
		created := ""
		if w.Created > 0 {
			created = time.UnixMilli(int64(w.Created * 1000)).UTC().Format(time.RFC3339)
		}
		rows = append(rows, []string{w.ID, w.Alias, w.Status.Code, created, strings.Join(tags, ",")})
	}
	return c.Print(c.format, list, []string{"ID", "ALIAS", "STATUS", "CREATED", "TAGS"}, rows)
}

func (c *command) create(ctx context.Context) error {
	body := map[string]any{}
	if c.alias != "" {
		body["alias"] = c.alias
	}
	if len(c.tags) > 0 {
		body["tags"] = c.tags
	}
	var w workspace
	if err := c.call(ctx, http.MethodPost, "/workspaces", body, &w); err != nil {
		return err
	}
	w.Alias = c.alias
	return c.print([]workspace{w})
}

func (c *command) list(ctx context.Context) error {
	all := []workspace{}
	q := url.Values{"maxResults": {"1000"}}
	if c.alias != "" {
		q.Set("alias", c.alias)
	}
	for {
		var page struct {
			Workspaces []workspace
			NextToken  string
		}
		if err := c.call(ctx, http.MethodGet, "/workspaces?"+q.Encode(), nil, &page); err != nil {
			return err
		}
		all = append(all, page.Workspaces...)
		if page.NextToken == "" {
			return c.print(all)
		}
		q.Set("nextToken", page.NextToken)
	}
}

func (c *command) path() string { return "/workspaces/" + url.PathEscape(c.id) }

func (c *command) describe(ctx context.Context) error {
	var answer struct{ Workspace workspace }
	if err := c.call(ctx, http.MethodGet, c.path(), nil, &answer); err != nil {
		return err
	}
	return c.print([]workspace{answer.Workspace})
}

func (c *command) rename(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, c.path()+"/alias", map[string]string{"alias": c.alias}, nil)
}

func (c *command) drop(ctx context.Context) error {
	return c.call(ctx, http.MethodDelete, c.path(), nil, nil)
}
