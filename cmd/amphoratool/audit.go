package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"slices"
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
	c.declare(f, e)
	f.StringVar(&from, "from", "", "time (RFC 3339), or how long ago, as 2h; a day ago if not set")
	f.StringVar(&to, "to", "", "time, or how long ago; now if not set")
	f.StringVar(&account, "account", "", "account that called or was called")
	f.StringVar(&event, "event", "", "name of the call, as DeleteWorkspace")
	f.StringVar(&caller, "caller", "", "part of the caller's ARN")
	f.BoolVar(&problems, "errors", false, "only calls that were refused or failed")
	f.IntVar(&limit, "limit", 1000, "most records; of more, the newest")
	f.BoolVar(&raw, "json", false, "print the records as they are, one a line")
	if err := f.Parse(args); err != nil {
		return err
	}
	if limit < 1 {
		return errors.New("-limit must be at least 1")
	}
	q := url.Values{"account": {account}, "event": {event}, "caller": {caller}, "errors": {strconv.FormatBool(problems)}}
	for name, text := range map[string]string{"from": from, "to": to} {
		if text == "" {
			continue
		}
		if ago, err := time.ParseDuration(text); err == nil {
			text = time.Now().Add(-ago).UTC().Format(time.RFC3339)
		}
		q.Set(name, text)
	}
	found, err := auditRecords(ctx, &c, q, limit)
	if err != nil {
		return err
	}
	for _, r := range slices.Backward(found.Records) { // the newest at last, where people look
		line := string(r)
		if !raw {
			line = auditLine(r)
		}
		if _, err := fmt.Fprintln(e.Out, line); err != nil {
			return err
		}
	}
	if found.NextToken != "" {
		_, _ = fmt.Fprintln(e.Err, "there are older records; -limit has more")
	}
	for _, d := range found.Damaged {
		_, _ = fmt.Fprintln(e.Err, "damaged:", d)
	}
	if len(found.Damaged) > 0 {
		return errors.New("records were changed, or are missing")
	}
	return nil
}

// auditPage is an answer of the server.
type auditPage struct {
	Records   []json.RawMessage
	NextToken string
	Damaged   []string
}

// auditRecords reads pages until there are limit records, the newest first.
func auditRecords(ctx context.Context, c *client, q url.Values, limit int) (all auditPage, err error) {
	const pageSize = 10_000 // the most that the server gives
	for {
		q.Set("limit", strconv.Itoa(min(limit-len(all.Records), pageSize)))
		answer, err := c.call(ctx, "GET", "/api/v1/audit?"+q.Encode(), nil)
		if err != nil {
			return all, err
		}
		var page auditPage
		if err := json.Unmarshal(answer, &page); err != nil {
			return all, fmt.Errorf("read the answer: %w", err)
		}
		all.Records = append(all.Records, page.Records...)
		for _, d := range page.Damaged { // batches between two pages are read for both
			if !slices.Contains(all.Damaged, d) {
				all.Damaged = append(all.Damaged, d)
			}
		}
		all.NextToken = page.NextToken
		if page.NextToken == "" || len(all.Records) >= limit || len(page.Records) == 0 {
			return all, nil
		}
		q.Set("next_token", page.NextToken)
	}
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
