package alertmanager

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/sns"

	"github.com/amphora-metrics/amphora/pkg/limits"
)

func TestWhatSNSWouldRefuseIsMendedAndSaid(t *testing.T) {
	phone := "+1"
	for _, c := range []struct {
		name, message, subject string
		attributes             map[string]string
		phone                  *string
		want, wantSubject      string
		modified, truncated    string
	}{
		{name: "all well", message: "m", subject: "s", attributes: map[string]string{"a.b-c_1": "v"}, want: "m", wantSubject: "s"},
		{name: "no UTF-8", message: "\xff", want: snsBadMessage, modified: "Message: " + snsBadMessage, truncated: "true"},
		{name: "empty", message: " \n", want: snsNoMessage, modified: "Message: " + snsNoMessage},
		{name: "long", message: strings.Repeat("ä", 200<<10), want: strings.Repeat("ä", 128<<10), truncated: "true",
			modified: "Message: Error - Message has been truncated from 400 KB, because it exceeds the 256 KB size limit."},
		{name: "long for a phone", message: strings.Repeat("ä", 1601), phone: &phone, want: strings.Repeat("ä", 1600), truncated: "true",
			modified: "Message: Error - Message has been truncated from 1601 characters, because it exceeds the 1600 character size limit."},
		{name: "subject of two lines", message: "m", subject: "a\nb", want: "m", wantSubject: snsBadSubject, modified: "Subject: " + snsBadSubject},
		{name: "subject that is no ASCII", message: "m", subject: "ä", want: "m", wantSubject: snsBadSubject, modified: "Subject: " + snsBadSubject},
		{name: "long subject", message: "m", subject: strings.Repeat("a", 120), want: "m", wantSubject: strings.Repeat("a", 100),
			modified: "Subject: Error - Subject has been truncated from 120 characters, because it exceeds the 100 character size limit."},
		{name: "attributes", message: "m", want: "m", attributes: map[string]string{"": "v", "AWS.x": "v", ".a": "v", "a..b": "v", "a b": "v", "empty": "", "good": "v"},
			modified: "MessageAttribute: Error - 6 of the message attributes have been removed because of invalid MessageAttributeKey or MessageAttributeValue."},
	} {
		attributes := c.attributes
		if attributes == nil {
			attributes = map[string]string{}
		}
		in := &sns.PublishInput{PhoneNumber: c.phone}
		mend(in, c.message, c.subject, attributes)
		text := func(name string) string {
			if v, ok := in.MessageAttributes[name]; ok {
				return *v.StringValue
			}
			return ""
		}
		subject := ""
		if in.Subject != nil {
			subject = *in.Subject
		}
		if *in.Message != c.want || subject != c.wantSubject || text("modified") != c.modified || text("truncated") != c.truncated {
			t.Errorf("%s: message %.40q, subject %q, modified %q, truncated %q", c.name, *in.Message, subject, text("modified"), text("truncated"))
		}
		if !utf8.ValidString(*in.Message) {
			t.Errorf("%s: a character was cut", c.name)
		}
	}
}

// TestAResolutionIsNoDoubleOfItsAlert: SNS drops what a FIFO topic gets under the name of another message
// of the last minutes.
func TestAResolutionIsNoDoubleOfItsAlert(t *testing.T) {
	var mu sync.Mutex
	var got []url.Values
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		mu.Lock()
		got = append(got, form)
		mu.Unlock()
		w.Header().Set("Content-Type", "text/xml")
		_, _ = io.WriteString(w, `<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>`)
	}))
	t.Cleanup(s.Close)
	c := newFleet(t, 2)
	data := defined(t, nil, "route:", "  receiver: r", "  group_by: [alertname]", "  group_wait: 50ms", "  group_interval: 500ms", "receivers:", "- name: r",
		"  sns_configs:", "  - api_url: "+s.URL, "    topic_arn: arn:aws:sns:us-east-1:123456789012:t.fifo", "    sigv4: {region: us-east-1, access_key: a, secret_key: s}")
	if err := c.nodes["am-0"].Put(t.Context(), "t", data); err != nil {
		t.Fatal(err)
	}
	published := func(n int) []url.Values {
		eventually(t, "it is published", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) >= n })
		mu.Lock()
		defer mu.Unlock()
		return got
	}
	c.alert(t, "t", "a")
	published(1)
	// Of a notification whose sender gave up before SNS answered nobody knows that it arrived, and then
	// nobody tells its end: on a busy machine that is so.
	eventually(t, "it is known to be published", func() bool {
		_, body := c.request(t, "t", "GET", decisionsPath, "")
		return strings.Contains(body, `"outcome":"`+outcomeSent+`"`)
	})
	mu.Lock()
	n := len(got) // one that was sent again has the name that it had
	mu.Unlock()
	c.done(t, "t", "POST", "/api/v2/alerts", `[{"labels":{"alertname":"a"},"startsAt":"2020-01-01T00:00:00Z","endsAt":"2020-01-01T00:00:01Z"}]`)
	t.Cleanup(func() {
		if t.Failed() {
			_, body := c.request(t, "t", "GET", decisionsPath, "")
			t.Log(body)
		}
	})
	all := published(n + 1)
	before, after := all[n-1], all[n]
	if before.Get("MessageDeduplicationId") == "" || before.Get("MessageDeduplicationId") == after.Get("MessageDeduplicationId") {
		t.Errorf("names %q and %q", before.Get("MessageDeduplicationId"), after.Get("MessageDeduplicationId"))
	}
	if before.Get("MessageGroupId") == "" || before.Get("MessageGroupId") != after.Get("MessageGroupId") {
		t.Errorf("groups %q and %q", before.Get("MessageGroupId"), after.Get("MessageGroupId"))
	}
}

// TestTheFirewallHoldsForSNSWithABundleOfTheEnvironment: the SDK then likes to make a client of its own.
func TestTheFirewallHoldsForSNSWithABundleOfTheEnvironment(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	t.Setenv("AWS_CA_BUNDLE", bundle(t, s))
	d, err := parse(defined(t, nil, "route:", "  receiver: r", "receivers:", "- name: r", "  sns_configs:", "  - api_url: "+s.URL,
		"    topic_arn: arn:aws:sns:us-east-1:123456789012:t", "    sigv4: {region: us-east-1, access_key: a, secret_key: s}"), rules{receivers: ReceiversAll}, limits.View{})
	if err != nil {
		t.Fatal(err)
	}
	v := limits.AlertmanagerBlockPrivate.With(limits.View{}, true)
	b, err := build(d, "t", mustURL(t, "http://x.example"), &sending{log: slog.New(slog.DiscardHandler), view: func() limits.View { return v }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.receivers["r"][0].Notify(notification(t)); err == nil || !strings.Contains(err.Error(), "firewall") {
		t.Errorf("sent to a private address: %v", err)
	}
}
