package integration

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

const (
	snsKey    = "AKIDEXAMPLE"
	snsSecret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	snsTopic  = "arn:aws:sns:us-east-1:123456789012:topic"
)

// topic speaks the protocol of SNS and refuses what is not signed by snsSecret. It counts messages by
// the name of the alert, which the tests' configurations make the message.
type topic struct {
	url string

	mu      sync.Mutex // guards what follows
	got     map[string]int
	refused []string
}

func newTopic(t *testing.T) *topic {
	p := &topic{got: map[string]int{}}
	s := httptest.NewServer(http.HandlerFunc(p.take))
	t.Cleanup(s.Close)
	p.url = s.URL
	return p
}

func (p *topic) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = signed(r, body)
	}
	form, formErr := url.ParseQuery(string(body))
	err = errors.Join(err, formErr)
	if form.Get("Action") != "Publish" || form.Get("TopicArn") != snsTopic || len(form.Get("Subject")) > 100 {
		err = errors.Join(err, fmt.Errorf("no publication to the topic: %s", body))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.refused = append(p.refused, err.Error())
		w.WriteHeader(http.StatusForbidden)
		return
	}
	p.got[form.Get("Message")]++
	w.Header().Set("Content-Type", "text/xml")
	_, _ = io.WriteString(w, `<PublishResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>1</MessageId></PublishResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></PublishResponse>`)
}

func (p *topic) counts() (got map[string]int, refused []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	got = map[string]int{}
	for k, v := range p.got {
		got[k] = v
	}
	return got, slices.Clone(p.refused)
}

var authorization = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=` + snsKey + `/(\d{8})/us-east-1/sns/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$`)

// signed checks the signature of a request, version 4, from its definition.
func signed(r *http.Request, body []byte) error {
	m := authorization.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil {
		return fmt.Errorf("authorization %q", r.Header.Get("Authorization"))
	}
	date, names, got := m[1], strings.Split(m[2], ";"), m[3]
	var canonical bytes.Buffer
	fmt.Fprintf(&canonical, "%s\n%s\n%s\n", r.Method, r.URL.EscapedPath(), r.URL.RawQuery)
	for _, name := range names {
		value := r.Header.Get(name)
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(r.ContentLength)
		}
		fmt.Fprintf(&canonical, "%s:%s\n", name, value)
	}
	sum := sha256.Sum256(body)
	fmt.Fprintf(&canonical, "\n%s\n%s", m[2], hex.EncodeToString(sum[:]))
	sum = sha256.Sum256(canonical.Bytes())
	text := "AWS4-HMAC-SHA256\n" + r.Header.Get("X-Amz-Date") + "\n" + date + "/us-east-1/sns/aws4_request\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + snsSecret)
	for _, part := range []string{date, "us-east-1", "sns", "aws4_request", text} {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(part))
		key = h.Sum(nil)
	}
	if want := hex.EncodeToString(key); want != got {
		return fmt.Errorf("signature %s, want %s", got, want)
	}
	return nil
}

func (p *topic) receiver() string {
	return "    sns_configs:\n    - api_url: " + p.url + "\n      topic_arn: " + snsTopic + "\n      sigv4: {region: us-east-1, access_key: " + snsKey + ", secret_key: " + snsSecret + "}\n" +
		"      message: '{{ .CommonLabels.alertname }}'\n      send_resolved: false\n"
}

// threeAlertmanagers starts a cluster of alertmanagers that see each other die within seconds.
func threeAlertmanagers(ctx context.Context, t *testing.T, flags ...string) *harness.Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	var nodes []harness.Spec
	for _, name := range []string{"alertmanager-1", "alertmanager-2", "alertmanager-3"} {
		nodes = append(nodes, harness.Spec{Name: name, Target: "alertmanager"})
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Nodes: nodes, Flags: append([]string{
		"-alertmanager.sharding-ring.heartbeat-period=500ms", "-alertmanager.sharding-ring.heartbeat-timeout=4s", "-alertmanager.peer-timeout=1s",
		"-alertmanager.configs.poll-interval=2s"}, flags...)})
	for _, n := range c.Nodes() {
		must(t, harness.Poll(ctx, func(ctx context.Context) error {
			got, err := members(ctx, n.URL("/multitenant_alertmanager/ring"))
			if err == nil && got != 3 {
				err = fmt.Errorf("%s sees %d alertmanagers", n.Spec.Name, got)
			}
			return err
		}))
	}
	return c
}

// members is how many live members a ring's page lists.
func members(ctx context.Context, url string) (int, error) {
	all, err := ringOf(ctx, url)
	return len(all), err
}

// TestAlertmanagersDieAndReturn kills one alertmanager after the other, and starts them again, while
// alerts come in, and finds every alert notified once by a webhook and by SNS.
func TestAlertmanagersDieAndReturn(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	c := threeAlertmanagers(ctx, t)
	hook, topic := newReceiver(t), newTopic(t)
	base := func() string { return c.Running()[0].URL("") }
	r := call(ctx, t, http.MethodPost, base()+"/api/v1/alerts", definitionFor(webhook(hook.url)+topic.receiver()), "X-Scope-OrgID", "one")
	if r.status != http.StatusCreated {
		t.Fatal(r)
	}
	var fired atomic.Int64
	var gate sync.Mutex // held while alerts are sent, and while none shall be
	names := func() (out []string) {
		for i := range fired.Load() {
			out = append(out, fmt.Sprintf("alert-%03d", i))
		}
		return out
	}
	notified := func(all []string) {
		t.Helper()
		hook.once(ctx, t, all...)
		must(t, harness.Poll(ctx, func(context.Context) error {
			if got, refused := topic.counts(); len(got) < len(all) {
				return fmt.Errorf("%d of %d published, refused: %v", len(got), len(all), refused)
			}
			return nil
		}))
	}
	sending, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { // as a ruler does: every alert again and again, to any alertmanager that takes it
		for sending.Err() == nil {
			gate.Lock()
			if fired.Load() < 150 {
				fired.Add(1)
			}
			for _, n := range c.Running() {
				if fire(sending, n.URL(""), "one", time.Now().Add(5*time.Minute), names()...) == nil {
					break
				}
			}
			gate.Unlock()
			select {
			case <-sending.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	for range 2 {
		for _, n := range c.Nodes() {
			pause(ctx, t, time.Second)
			// Nobody can know whether a notification arrived whose sender died with it, so none is
			// under way at the kill; new alerts come from then on.
			gate.Lock()
			notified(names())
			pause(ctx, t, time.Second)
			t.Logf("%s: %s is killed", time.Now().Format(time.StampMilli), n.Spec.Name)
			must(t, n.Kill())
			gate.Unlock()
			pause(ctx, t, 2*time.Second)
			must(t, n.Start())
			must(t, n.WaitReady(ctx))
		}
	}
	must(t, harness.Poll(ctx, func(context.Context) error {
		if n := fired.Load(); n < 150 {
			return fmt.Errorf("%d alerts fired", n)
		}
		return nil
	}))
	all := names()
	notified(all)
	pause(ctx, t, 8*time.Second) // groups of all replicas flush several times
	stop()
	wg.Wait()
	hook.never(t, 2, all...)
	got, refused := topic.counts()
	for _, name := range all {
		if got[name] != 1 {
			t.Errorf("SNS got %s %d times", name, got[name])
		}
	}
	if len(refused) > 0 {
		t.Errorf("SNS refused %d requests: %s", len(refused), refused[0])
	}
}

// TestSilencesAreKnownToAllAlertmanagers makes a silence at one alertmanager, kills that one, and finds
// the silence in force, changed and expired at the others.
func TestSilencesAreKnownToAllAlertmanagers(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 2*time.Minute)
	c := threeAlertmanagers(ctx, t)
	hook := newReceiver(t)
	n := c.Nodes()
	if r := call(ctx, t, http.MethodPost, n[0].URL("/api/v1/alerts"), definitionFor(webhook(hook.url)), "X-Scope-OrgID", "one"); r.status != http.StatusCreated {
		t.Fatal(r)
	}
	silence := func(node *harness.Node, id string) string {
		body, err := json.Marshal(map[string]any{"id": id, "matchers": []any{map[string]any{"name": "alertname", "value": "quiet", "isRegex": false}},
			"startsAt": time.Now().Add(-time.Second), "endsAt": time.Now().Add(time.Hour), "createdBy": "test", "comment": "quiet"})
		must(t, err)
		r := call(ctx, t, http.MethodPost, node.URL("/alertmanager/api/v2/silences"), body, "X-Scope-OrgID", "one", "Content-Type", "application/json")
		var out struct{ SilenceID string }
		if err := json.Unmarshal([]byte(r.body), &out); err != nil || r.status != http.StatusOK {
			t.Fatalf("silence: %s", r)
		}
		return out.SilenceID
	}
	id := silence(n[0], "")
	must(t, n[0].Kill())
	for _, other := range n[1:] {
		if r := call(ctx, t, http.MethodGet, other.URL("/alertmanager/api/v2/silence/"+id), nil, "X-Scope-OrgID", "one"); r.status != http.StatusOK {
			t.Errorf("silence at %s: %s", other.Spec.Name, r)
		}
		if r := call(ctx, t, http.MethodGet, other.URL("/alertmanager/api/v2/silences"), nil, "X-Scope-OrgID", "two"); strings.Contains(r.body, id) {
			t.Errorf("another tenant sees the silence: %s", r)
		}
	}
	must(t, fire(ctx, n[1].URL(""), "one", time.Now().Add(time.Hour), "quiet", "loud"))
	hook.once(ctx, t, "loud")
	hook.never(t, 1, "quiet")
	if got := alertsOf(ctx, t, n[2].URL(""), "one", url.Values{"silenced": {"false"}}); !slices.Equal(got, []string{"loud"}) {
		t.Errorf("alerts that are not silenced: %v", got)
	}
	if r := call(ctx, t, http.MethodDelete, n[2].URL("/alertmanager/api/v2/silence/"+id), nil, "X-Scope-OrgID", "one"); r.status != http.StatusOK {
		t.Errorf("expire: %s", r)
	}
	hook.once(ctx, t, "quiet")
	must(t, n[0].Start())
	must(t, n[0].WaitReady(ctx))
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		r, err := try(ctx, http.MethodGet, n[0].URL("/alertmanager/api/v2/silence/"+id), nil, "X-Scope-OrgID", "one")
		if err == nil && !strings.Contains(r.body, `"state":"expired"`) {
			err = errors.New(r.String())
		}
		return err
	}))
	if r := call(ctx, t, http.MethodDelete, n[1].URL("/alertmanager/api/v2/silence/00000000-0000-0000-0000-000000000000"), nil, "X-Scope-OrgID", "one"); r.status != http.StatusNotFound {
		t.Errorf("expire what is not there: %s", r)
	}
}
