package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/amphora-metrics/amphora/cmd/amphoratool/internal/cli"
)

func auditCommand(ctx context.Context, e *cli.Env, args []string) error {
	var c client
	var from, to, account, event, caller string
	var problems, raw bool
	var limit int
	f := flag.NewFlagSet("audit", flag.ContinueOnError)
	f.SetOutput(e.Err)
	c.declare(f)
	f.StringVar(&from, "from", "", "time (RFC 3339), or how long ago, as 2h; a day ago if not set")
	f.StringVar(&to, "to", "", "time, or how long ago; now if not set")
	f.StringVar(&account, "account", "", "account that called or was called")
	f.StringVar(&event, "event", "", "name of the call, as DeleteWorkspace")
	f.StringVar(&caller, "caller", "", "part of the caller's ARN")
	f.BoolVar(&problems, "errors", false, "only calls that were refused or failed")
	f.IntVar(&limit, "limit", 1000, "most records")
	f.BoolVar(&raw, "json", false, "print the records as they are, one a line")
	if err := f.Parse(args); err != nil {
		return err
	}
	q := url.Values{"account": {account}, "event": {event}, "caller": {caller}, "errors": {strconv.FormatBool(problems)}, "limit": {strconv.Itoa(limit)}}
	for name, text := range map[string]string{"from": from, "to": to} {
		if text == "" {
			continue
		}
		if ago, err := time.ParseDuration(text); err == nil {
			text = time.Now().Add(-ago).UTC().Format(time.RFC3339)
		}
		q.Set(name, text)
	}
	answer, err := c.call(ctx, "GET", "/api/v1/audit?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	var found struct {
		Records []json.RawMessage
		More    bool
		Damaged []string
	}
	if err := json.Unmarshal(answer, &found); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	for _, r := range found.Records {
		line := string(r)
		if !raw {
			line = auditLine(r)
		}
		if _, err := fmt.Fprintln(e.Out, line); err != nil {
			return err
		}
	}
	if found.More {
		_, _ = fmt.Fprintln(e.Err, "there are more records than the limit")
	}
	for _, d := range found.Damaged {
		_, _ = fmt.Fprintln(e.Err, "damaged:", d)
	}
	if len(found.Damaged) > 0 {
		return errors.New("records were changed, or are missing")
	}
	return nil
}

// auditLine is a record for people.
func auditLine(raw json.RawMessage) string {
	var r struct {
		EventTime, EventName, SourceIPAddress, ErrorCode string
		UserIdentity                                     struct{ Arn string }
		RequestParameters                                json.RawMessage
	}
	if json.Unmarshal(raw, &r) != nil {
		return string(raw)
	}
	outcome := r.ErrorCode
	if outcome == "" {
		outcome = "ok"
	}
	return fmt.Sprintf("%s %-32s %-24s %s from %s %s", r.EventTime, r.EventName, outcome, r.UserIdentity.Arn, r.SourceIPAddress, r.RequestParameters)
}
