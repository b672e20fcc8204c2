package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// killFor is the environment variable that says how long TestRandomKillsCostNoEvaluationAndNoNotification
// kills processes, such as 10m.
const killFor = "AMPHORA_KILL_FOR"

// ledger counts notifications by what they say and the alert that they are about. One that is sent again
// under the name that it had is the same one: its first sender died before it could tell.
type ledger struct {
	url string

	mu      sync.Mutex // guards what follows
	names   map[string]bool
	got     map[string][]time.Time // by "firing alert-1"
	again   int
	refused []string
}

func newLedger(t *testing.T, read func(*http.Request, []byte) (name, what string, err error), answer string) *ledger {
	l := &ledger{names: map[string]bool{}, got: map[string][]time.Time{}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // its sender was killed while it sent, and it did not arrive
		}
		name, what, err := read(r, body)
		if !l.note(name, what, err) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		pause := time.NewTimer(rand.N(20 * time.Millisecond))
		defer pause.Stop()
		<-pause.C // it has arrived, and its sender may be killed before it knows
		w.Header().Set("Content-Type", "text/xml")
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	l.url = s.URL
	return l
}

// note says whether a notification is accepted.
func (l *ledger) note(name, what string, err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err != nil || name == "":
		l.refused = append(l.refused, fmt.Sprintf("%s: %v", what, err))
		return false
	case l.names[name]:
		l.again++
	default:
		l.names[name] = true
		l.got[what] = append(l.got[what], time.Now())
	}
	return true
}

// missing returns how many of what have not arrived, and one of them.
func (l *ledger) missing(what []string) (n int, one string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range what {
		if len(l.got[w]) == 0 {
			n, one = n+1, w
		}
	}
	return n, one
}

// once fails if anything but each of what once has arrived.
func (l *ledger) once(t *testing.T, by string, what []string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, w := range what {
		if len(l.got[w]) != 1 {
			t.Errorf("%s was told %q %d times: %v", by, w, len(l.got[w]), l.got[w])
		}
		delete(l.got, w)
	}
	for w := range l.got {
		t.Errorf("%s was told %q", by, w)
	}
	if len(l.refused) > 0 {
		t.Errorf("%s refused %d requests, such as %s", by, len(l.refused), l.refused[0])
	}
	t.Logf("%s: %d notifications, each once; %d of them came a second time under the same name", by, len(what), l.again)
}

// readHook reads what an alertmanager posts to a webhook.
func readHook(r *http.Request, body []byte) (name, what string, err error) {
	var in struct {
		Status       string
		CommonLabels map[string]string
	}
	err = json.Unmarshal(body, &in)
	return r.Header.Get("Idempotency-Key"), in.Status + " " + in.CommonLabels["alertname"], err
}

const fifoTopic = snsTopic + ".fifo"

// readSNS reads what is published to SNS, and checks its signature. Messages of a FIFO topic have names.
func readSNS(r *http.Request, body []byte) (name, what string, err error) {
	v := sigv4.New(sigv4.Config{Regions: []string{"us-east-1"}, Services: []string{"sns"}})
	req := sigv4.FromHTTP(r)
	claim, err := v.Parse(req, time.Now())
	if err != nil {
		return "", "", err
	}
	if claim.AccessKey != snsKey {
		return "", "", fmt.Errorf("access key %q", claim.AccessKey)
	}
	if err := v.Verify(claim, req, sigv4.Key{Secret: snsSecret}, sigv4.PayloadHash(body), int64(len(body))); err != nil {
		return "", "", err
	}
	form, err := url.ParseQuery(string(body))
	if err == nil && (form.Get("Action") != "Publish" || form.Get("TopicArn") != fifoTopic || form.Get("MessageGroupId") == "") {
		err = fmt.Errorf("no publication to the topic: %s", body)
	}
	return form.Get("MessageDeduplicationId"), form.Get("Message"), err
}

// killing is how the test is run.
type killing struct {
	run           time.Duration // processes are killed for so long
	groups        int
	alerts        int
	interval      time.Duration
	fires         time.Duration // every alert, and then it ends; 0: it does not end
	resend        time.Duration
	groupInterval time.Duration
}

func killings(t *testing.T) killing {
	t.Helper()
	text := os.Getenv(killFor)
	if text == "" {
		return killing{run: 12 * time.Second, groups: 40, alerts: 100, interval: 2 * time.Second, resend: 5 * time.Second, groupInterval: 2 * time.Second}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Minute {
		t.Fatalf("%s: %q is no time of a minute or more", killFor, text)
	}
	return killing{run: d, groups: 200, alerts: 500, interval: 5 * time.Second, fires: 75 * time.Second, resend: 15 * time.Second, groupInterval: 5 * time.Second}
}

// rules are the groups of namespace ns of several, each with a recording rule and its share of the alerts,
// which begin to fire one after the other.
func (k *killing) rules(ns, of int, begin time.Time) []byte {
	var b strings.Builder
	b.WriteString("groups:\n")
	for g := ns; g < k.groups; g += of {
		fmt.Fprintf(&b, "- name: g%d\n  interval: %s\n  rules:\n  - record: value%d\n    expr: vector(%d)\n", g, k.interval, g, g)
		for a := g; a < k.alerts; a += k.groups {
			at := begin.Add(k.run * 9 / 10 * time.Duration(a) / time.Duration(k.alerts)).Unix()
			end := int64(math.MaxInt32)
			if k.fires > 0 {
				end = at + int64(k.fires.Seconds())
			}
			fmt.Fprintf(&b, "  - alert: alert-%d\n    expr: vector(time()) >= %d < %d\n", a, at, end)
		}
	}
	return []byte(b.String())
}

// expected are all notifications of alerts.
func (k *killing) expected() (out []string) {
	for a := range k.alerts {
		out = append(out, fmt.Sprintf("firing alert-%d", a))
		if k.fires > 0 {
			out = append(out, fmt.Sprintf("resolved alert-%d", a))
		}
	}
	return out
}

// kill kills one of nodes after the other at random, and starts it again, until ctx ends. It returns how
// often.
func kill(ctx, all context.Context, t *testing.T, nodes []*harness.Node, seed uint64) (n int) {
	random := rand.New(rand.NewPCG(seed, 1))
	rest := func(most time.Duration) bool {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Second/2 + time.Duration(random.Int64N(int64(most)))):
			return true
		}
	}
	for rest(3 * time.Second) {
		node := nodes[random.IntN(len(nodes))]
		if err := node.Kill(); err != nil {
			t.Error(err)
			return n
		}
		n++
		rest(5 * time.Second)
		if err := errors.Join(node.Start(), node.WaitReady(all)); err != nil {
			t.Error(err)
			return n
		}
	}
	return n
}

// TestRandomKillsCostNoEvaluationAndNoNotification kills rulers and alertmanagers at random while alerts
// begin and end, and finds every evaluation of every group recorded and every alert notified once, by a
// webhook and by SNS. It takes half a minute, or what AMPHORA_KILL_FOR says, and then with more of everything.
func TestRandomKillsCostNoEvaluationAndNoNotification(t *testing.T) {
	k := killings(t)
	ctx := bounded(t, 2*k.run+5*time.Minute)
	c := threeAlertmanagers(ctx, t, "-ruler.ring.heartbeat-period=500ms", "-ruler.ring.heartbeat-timeout=3s", "-ruler.evaluation-delay-duration=0s",
		"-ruler.max-rule-groups-per-tenant=0", "-ruler.resend-delay="+k.resend.String(), "-ingester.ring.replication-factor=1")
	var urls []string
	ams := c.Nodes()
	for _, n := range ams {
		urls = append(urls, n.URL("/alertmanager"))
	}
	for _, s := range []harness.Spec{{Name: "core", Target: "ingester,distributor,querier,store-gateway"}, {Name: "ruler-1", Target: "ruler"}, {Name: "ruler-2", Target: "ruler"}} {
		s.Flags = []string{"-ruler.alertmanager-url=" + strings.Join(urls, ",")}
		n, err := c.Add(s)
		must(t, err)
		must(t, n.WaitReady(ctx))
	}
	hook := newLedger(t, readHook, "")
	topic := newLedger(t, readSNS, `<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>1</MessageId></PublishResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></PublishResponse>`)
	resolved := strconv.FormatBool(k.fires > 0)
	sns := "    sns_configs:\n    - {api_url: " + topic.url + ", topic_arn: '" + fifoTopic + "', send_resolved: " + resolved + ", message: '{{ .Status }} {{ .CommonLabels.alertname }}',\n" +
		"       sigv4: {region: us-east-1, access_key: " + snsKey + ", secret_key: " + snsSecret + "}}\n"
	config := strings.ReplaceAll(string(definitionFor("    webhook_configs:\n    - {url: "+hook.url+", send_resolved: "+resolved+"}\n"+sns)), "group_interval: 2s", "group_interval: "+k.groupInterval.String())
	if r := call(ctx, t, http.MethodPost, ams[0].URL("/api/v1/alerts"), []byte(config), "X-Scope-OrgID", "shop"); r.status != http.StatusCreated {
		t.Fatal(r)
	}
	begin := time.Now().Add(5 * time.Second)
	const namespaces = 4
	for ns := range namespaces {
		r := call(ctx, t, http.MethodPut, c.Node("ruler-1").URL("/prometheus/config/v1/rules/ns"+strconv.Itoa(ns)), k.rules(ns, namespaces, begin), "X-Scope-OrgID", "shop")
		if r.status != http.StatusAccepted {
			t.Fatal(r)
		}
	}
	killing, stop := context.WithDeadline(ctx, begin.Add(k.run))
	defer stop()
	seed := rand.Uint64()
	var wg sync.WaitGroup
	var rulers, managers atomic.Int64
	wg.Go(func() {
		rulers.Store(int64(kill(killing, ctx, t, []*harness.Node{c.Node("ruler-1"), c.Node("ruler-2")}, seed)))
	})
	wg.Go(func() { managers.Store(int64(kill(killing, ctx, t, ams, seed+1))) })
	wg.Wait()
	t.Logf("seed %d: rulers were killed %d times, alertmanagers %d times, in %s", seed, rulers.Load(), managers.Load(), k.run)
	all := k.expected()
	for _, l := range []*ledger{hook, topic} {
		must(t, harness.Poll(ctx, func(context.Context) error {
			if n, one := l.missing(all); n > 0 {
				return fmt.Errorf("%d of %d notifications have not come, such as %q", n, len(all), one)
			}
			return nil
		}))
	}
	pause(ctx, t, 2*k.groupInterval+5*time.Second) // groups of all replicas flush several times
	hook.once(t, "the webhook", all)
	topic.once(t, "SNS", all)
	k.recorded(ctx, t, c.Node("core").URL(""), begin)
}

// recorded fails unless every group has a sample at each of its intervals since begin.
func (k *killing) recorded(ctx context.Context, t *testing.T, base string, begin time.Time) {
	t.Helper()
	samples := 0
	window := time.Since(begin).Round(time.Second)
	for g := range k.groups {
		must(t, harness.Poll(ctx, func(ctx context.Context) error {
			a, err := ask(ctx, base+"/prometheus", "shop", "query", url.Values{"query": {fmt.Sprintf("value%d[%s]", g, window)}})
			if err != nil {
				return err
			}
			if len(a.Data.Result) != 1 {
				return fmt.Errorf("value%d has %d series", g, len(a.Data.Result))
			}
			values := a.Data.Result[0].Values
			if least := int(window/k.interval) - 2; len(values) < least {
				return fmt.Errorf("group %d has %d samples in %s, want %d", g, len(values), window, least)
			}
			for i := 1; i < len(values); i++ {
				if d := values[i][0].(float64) - values[i-1][0].(float64); math.Abs(d-k.interval.Seconds()) > 0.002 { //nolint:forcetypeassert // As the API says.
					return fmt.Errorf("group %d: %g s lie between two samples", g, d)
				}
			}
			samples += len(values)
			return nil
		}))
	}
	t.Logf("%d groups: %d samples in %s, without a gap", k.groups, samples, window)
}
