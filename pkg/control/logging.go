package control

import (
	"net/http"
	"time"
)

// logging says where a workspace's own events go. The place is kept as given; events are in the log
// of the process and in the audit.
type logging struct {
	LogGroup string    `json:"log_group"`
	Created  time.Time `json:"created"`
	Modified time.Time `json:"modified"`
}

// queryLogging says which queries are logged.
type queryLogging struct {
	Destinations []destination `json:"destinations"`
	Created      time.Time     `json:"created"`
	Modified     time.Time     `json:"modified"`
}

type destination struct {
	CloudWatch cloudWatch `json:"cloudWatchLogs"`
	Filters    filters    `json:"filters"`
}

type cloudWatch struct {
	LogGroup string `json:"logGroupArn"`
}

type filters struct {
	Threshold *int64 `json:"qspThreshold"` // samples a query processes
}

const loggingKind, queryLoggingKind = "loggingconfiguration", "queryloggingconfiguration"

func checkLogGroup(field, arn string) error {
	return pattern(field, arn, `arn:aws[a-z0-9-]*:logs:[a-z0-9-]+:[0-9]{12}:log-group:[A-Za-z0-9\.\-\_\#/]{1,512}\:\*`, 1, 1024)
}

func accepted(state string) reply {
	return reply{http.StatusAccepted, map[string]any{"status": status{Code: state}}}
}

// setLogging makes the logging configuration, or replaces one that must be there.
func (c *Control) setLogging(x *call, operation string, replace bool) error {
	var in struct {
		LogGroup string `json:"logGroupArn"`
		Token    string `json:"clientToken"`
	}
	if err := x.decode(&in); err != nil {
		return err
	}
	if err := checkLogGroup("logGroupArn", in.LogGroup); err != nil {
		return err
	}
	id := x.segment(1)
	_, err := c.changeWorkspace(x, operation, in.Token, hashOf(id, in.LogGroup), func(w *workspace) (any, error) {
		now := c.now()
		next := &logging{in.LogGroup, now, now}
		switch {
		case replace && w.Logging == nil:
			return nil, missing(loggingKind, id)
		case !replace && w.Logging != nil:
			return nil, conflict(loggingKind, id, "the workspace has a logging configuration")
		case replace:
			next.Created = w.Logging.Created
		}
		w.Logging = next
		return nil, nil
	})
	return err
}

func createLogging(c *Control, x *call) (reply, error) {
	return accepted("CREATING"), c.setLogging(x, "CreateLoggingConfiguration", false)
}

func updateLogging(c *Control, x *call) (reply, error) {
	return accepted("UPDATING"), c.setLogging(x, "UpdateLoggingConfiguration", true)
}

func describeLogging(c *Control, x *call) (reply, error) {
	w, err := c.own(x.r.Context(), x, x.segment(1))
	if err != nil {
		return reply{}, err
	}
	if w.Logging == nil {
		return reply{}, missing(loggingKind, w.ID)
	}
	return reply{http.StatusOK, map[string]any{"loggingConfiguration": map[string]any{
		"status": status{Code: active}, "workspace": w.ID, "logGroupArn": w.Logging.LogGroup,
		"createdAt": epoch(w.Logging.Created), "modifiedAt": epoch(w.Logging.Modified),
	}}}, nil
}

func deleteLogging(c *Control, x *call) (reply, error) {
	id := x.segment(1)
	_, err := c.changeWorkspace(x, "DeleteLoggingConfiguration", x.query.Get("clientToken"), hashOf(id), func(w *workspace) (any, error) {
		if w.Logging == nil {
			return nil, missing(loggingKind, id)
		}
		w.Logging = nil
		return nil, nil
	})
	return reply{http.StatusAccepted, nil}, err
}

func (c *Control) setQueryLogging(x *call, operation string, replace bool) error {
	var in struct {
		Destinations []destination `json:"destinations"`
		Token        string        `json:"clientToken"`
	}
	if err := x.decode(&in); err != nil {
		return err
	}
	if len(in.Destinations) != 1 {
		return invalid("destinations", "destinations must have exactly one element")
	}
	d := in.Destinations[0]
	if err := checkLogGroup("destinations", d.CloudWatch.LogGroup); err != nil {
		return err
	}
	if d.Filters.Threshold == nil || *d.Filters.Threshold < 0 {
		return invalid("destinations", "filters.qspThreshold must be 0 or more")
	}
	id := x.segment(1)
	_, err := c.changeWorkspace(x, operation, in.Token, hashOf(id, in.Destinations), func(w *workspace) (any, error) {
		now := c.now()
		next := &queryLogging{in.Destinations, now, now}
		switch {
		case replace && w.Queries == nil:
			return nil, missing(queryLoggingKind, id)
		case !replace && w.Queries != nil:
			return nil, conflict(queryLoggingKind, id, "the workspace has a query logging configuration")
		case replace:
			next.Created = w.Queries.Created
		}
		w.Queries = next
		return nil, nil
	})
	return err
}

func createQueryLogging(c *Control, x *call) (reply, error) {
	return accepted("CREATING"), c.setQueryLogging(x, "CreateQueryLoggingConfiguration", false)
}

func updateQueryLogging(c *Control, x *call) (reply, error) {
	return accepted("UPDATING"), c.setQueryLogging(x, "UpdateQueryLoggingConfiguration", true)
}

func describeQueryLogging(c *Control, x *call) (reply, error) {
	w, err := c.own(x.r.Context(), x, x.segment(1))
	if err != nil {
		return reply{}, err
	}
	if w.Queries == nil {
		return reply{}, missing(queryLoggingKind, w.ID)
	}
	return reply{http.StatusOK, map[string]any{"queryLoggingConfiguration": map[string]any{
		"status": status{Code: active}, "workspace": w.ID, "destinations": w.Queries.Destinations,
		"createdAt": epoch(w.Queries.Created), "modifiedAt": epoch(w.Queries.Modified),
	}}}, nil
}

func deleteQueryLogging(c *Control, x *call) (reply, error) {
	id := x.segment(1)
	_, err := c.changeWorkspace(x, "DeleteQueryLoggingConfiguration", x.query.Get("clientToken"), hashOf(id), func(w *workspace) (any, error) {
		if w.Queries == nil {
			return nil, missing(queryLoggingKind, id)
		}
		w.Queries = nil
		return nil, nil
	})
	return reply{http.StatusAccepted, nil}, err
}
