package api

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// Operations is the control plane.
type Operations interface {
	// Operation returns the handler of the call that Amazon's model names so; nil: there is none.
	Operation(name string) func(http.ResponseWriter, *http.Request) error
}

// operation is a row of a call of the control plane, allowed by the action of the same name.
func operation(method, path, name, doc string) Route {
	return Route{Methods: method, Path: path, Action: Action("aps:" + name), Service: Control, Style: AWS, Doc: doc,
		Metric: "control_" + strings.ToLower(name),
		bind: func(a *API) Handler {
			if a.deps.Control == nil {
				return nil
			}
			if h := a.deps.Control.Operation(name); h != nil {
				return Handler(h)
			}
			return nil
		}}
}

// controlRoutes is the control plane as Amazon's clients know it.
func controlRoutes() []Route {
	const (
		one     = "/workspaces/{workspaceId}"
		rules   = one + "/rulegroupsnamespaces"
		alerts  = one + "/alertmanager/definition"
		logs    = one + "/logging"
		queries = one + "/logging/query"
		config  = one + "/configuration"
		policy  = one + "/policy"
		tags    = "/tags/{resourceArn...}"
		scraper = "/scrapers/{scraperId}"
	)
	return []Route{
		operation("POST", "/workspaces", "CreateWorkspace", "Make a workspace."),
		operation("GET", "/workspaces", "ListWorkspaces", "Workspaces of the account: `alias`, `maxResults`, `nextToken`."),
		operation("GET", one, "DescribeWorkspace", "A workspace."),
		operation("DELETE", one, "DeleteWorkspace", "Delete a workspace. An operator can restore it until its data is purged."),
		operation("POST", one+"/alias", "UpdateWorkspaceAlias", "Rename a workspace."),
		operation("POST", rules, "CreateRuleGroupsNamespace", "Make a rule file."),
		operation("GET", rules, "ListRuleGroupsNamespaces", "Rule files of a workspace: `name`, `maxResults`, `nextToken`."),
		operation("GET", rules+"/{name}", "DescribeRuleGroupsNamespace", "A rule file, byte for byte."),
		operation("PUT", rules+"/{name}", "PutRuleGroupsNamespace", "Replace a rule file."),
		operation("DELETE", rules+"/{name}", "DeleteRuleGroupsNamespace", "Delete a rule file."),
		operation("POST", alerts, "CreateAlertManagerDefinition", "Make the alert manager definition."),
		operation("GET", alerts, "DescribeAlertManagerDefinition", "The alert manager definition, byte for byte."),
		operation("PUT", alerts, "PutAlertManagerDefinition", "Replace the alert manager definition."),
		operation("DELETE", alerts, "DeleteAlertManagerDefinition", "Delete the alert manager definition."),
		operation("POST", tags, "TagResource", "Set tags of a workspace or a rule file."),
		operation("GET", tags, "ListTagsForResource", "Tags of a workspace or a rule file."),
		operation("DELETE", tags, "UntagResource", "Take tags away: `tagKeys`, which may repeat."),
		operation("POST", logs, "CreateLoggingConfiguration", "Say where events of a workspace go."),
		operation("GET", logs, "DescribeLoggingConfiguration", "Where events of a workspace go."),
		operation("PUT", logs, "UpdateLoggingConfiguration", "Change where events of a workspace go."),
		operation("DELETE", logs, "DeleteLoggingConfiguration", "Forget where events of a workspace go."),
		operation("POST", queries, "CreateQueryLoggingConfiguration", "Say which queries are logged."),
		operation("GET", queries, "DescribeQueryLoggingConfiguration", "Which queries are logged."),
		operation("PUT", queries, "UpdateQueryLoggingConfiguration", "Change which queries are logged."),
		operation("DELETE", queries, "DeleteQueryLoggingConfiguration", "Forget which queries are logged."),
		operation("GET", config, "DescribeWorkspaceConfiguration", "Limits that a workspace sets itself."),
		operation("PATCH", config, "UpdateWorkspaceConfiguration", "Change limits that a workspace sets itself; processes follow within half a minute."),
		operation("PUT", policy, "PutResourcePolicy", "Set the resource policy of a workspace."),
		operation("GET", policy, "DescribeResourcePolicy", "The resource policy of a workspace."),
		operation("DELETE", policy, "DeleteResourcePolicy", "Delete the resource policy of a workspace."),
		operation("POST", "/scrapers", "CreateScraper", "Make a scraper, which writes into a workspace."),
		{Methods: "GET", Path: "/api/v1/workspaces", Action: "aps:ListWorkspaces", Service: Control, Metric: "control_workspaces", bind: operation("", "", "ListWorkspaces", "").bind,
			Doc: "The same as /workspaces for callers by any scheme; a token of one workspace that may query it gets that one."},
		operation("GET", "/scrapers", "ListScrapers", "Scrapers of the account: `status`, `sourceArn`, `destinationArn` and `alias`, which may repeat, `maxResults`, `nextToken`."),
		operation("GET", scraper, "DescribeScraper", "A scraper."),
		operation("PUT", scraper, "UpdateScraper", "Change a scraper."),
		operation("DELETE", scraper, "DeleteScraper", "Delete a scraper."),
		operation("GET", "/scraperconfiguration", "GetDefaultScraperConfiguration", "A configuration to begin with."),
		operation("PUT", scraper+"/logging-configuration", "UpdateScraperLoggingConfiguration", "Say which parts of a scraper tell in the log what they do."),
		operation("GET", scraper+"/logging-configuration", "DescribeScraperLoggingConfiguration", "Which parts of a scraper tell in the log what they do."),
		operation("DELETE", scraper+"/logging-configuration", "DeleteScraperLoggingConfiguration", "Let a scraper be silent."),
	}
}

// writeAWSError answers as clients of AWS read it.
func writeAWSError(w http.ResponseWriter, status int, code, text string) {
	h := w.Header()
	if h.Get("X-Amzn-Requestid") == "" {
		h.Set("X-Amzn-Requestid", uuid.NewString())
	}
	h.Set("X-Amzn-Errortype", code)
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": text}) // the client is gone if this fails
}

// awsCode is the code of kind; every answer needs one.
func awsCode(kind errs.Kind) string {
	if code := kind.AWSType(); code != "" {
		return code
	}
	return errs.Internal.AWSType()
}
