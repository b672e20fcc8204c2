package alertmanager

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/alertmanager/alert"
	"github.com/prometheus/alertmanager/nflog/nflogpb"
	"github.com/prometheus/alertmanager/notify"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// bundle writes the certificate of a server to a file.
func bundle(t *testing.T, s *httptest.Server) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func mustURL(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// notification is the context of one.
func notification(t *testing.T) context.Context {
	ctx := notify.WithReceiverName(notify.WithGroupKey(t.Context(), "g"), "r")
	return notify.WithGroupLabels(ctx, model.LabelSet{})
}

// box remembers the names and groups of notifications.
type box struct {
	url string

	mu   sync.Mutex // guards what follows
	keys []string
	key  string // of the group
}

func newBox(t *testing.T) *box {
	b := &box{}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var in struct{ GroupKey string }
		body, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(body, &in)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.keys, b.key = append(b.keys, r.Header.Get(keyHeader)), in.GroupKey
	}))
	t.Cleanup(s.Close)
	b.url = s.URL
	return b
}

func (b *box) all() ([]string, string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.keys, b.key
}

// TestASuccessorSendsAgainUnderTheSameName: of a notification whose sender died before it said whether it
// arrived nobody knows more than its name, and a receiver can drop what it has by that.
func TestASuccessorSendsAgainUnderTheSameName(t *testing.T) {
	first := newFleet(t, 1)
	b := newBox(t)
	first.put(t, "t", b.url)
	first.alert(t, "t", "a")
	eventually(t, "it is notified", func() bool { keys, _ := b.all(); return len(keys) == 1 })
	keys, group := b.all()
	name := keys[0]
	if len(name) != 64 {
		t.Fatalf("name %q", name)
	}
	for _, policy := range []string{unconfirmedSend, unconfirmedDrop} {
		c := newFleet(t, 2)
		c.limits = func(tenant.ID) limits.View { return limits.AlertmanagerUnconfirmed.With(limits.View{}, policy) }
		b := newBox(t)
		c.put(t, "t", b.url)
		// What a sender leaves that dies.
		c.nodes["am-1"].claims.take("t/r/webhook/0/"+group, "dead", name, time.Millisecond, time.Now().Add(-time.Second))
		c.alert(t, "t", "a")
		counter := c.nodes["am-0"].metrics.unconfirmed.WithLabelValues(policy)
		eventually(t, policy+" is done", func() bool { return testutil.ToFloat64(counter) == 1 })
		if policy == unconfirmedSend {
			eventually(t, "it is sent again", func() bool { keys, _ := b.all(); return len(keys) == 1 && keys[0] == name })
			eventually(t, "that is said", func() bool {
				_, body := c.request(t, "t", "GET", decisionsPath, "")
				return strings.Contains(body, "died before it said whether it arrived")
			})
		}
		<-time.After(2 * time.Second) // groups flush several times
		if keys, _ := b.all(); policy == unconfirmedDrop && len(keys) > 0 || len(keys) > 1 {
			t.Errorf("%s: notified %d times", policy, len(keys))
		}
		// What comes next is something else.
		c.done(t, "t", "POST", "/api/v2/alerts", `[{"labels":{"alertname":"a"},"startsAt":"2020-01-01T00:00:00Z","endsAt":"2020-01-01T00:00:01Z"}]`)
		eventually(t, "its end is notified", func() bool { keys, _ := b.all(); return len(keys) > 0 && keys[len(keys)-1] != name })
	}
}

func TestTheNameOfADeadSendersNotificationOutlivesItsClaim(t *testing.T) {
	var c claims
	now := time.Now()
	c.take("k", "dead", "", time.Second, now)
	c.take("k", "dead", "n", time.Second, now)
	c.sweep(now.Add(time.Minute))
	if who, unfinished := c.take("k", "b", "", time.Second, now.Add(time.Minute)); who != "b" || unfinished != "n" {
		t.Errorf("%q, unfinished %q", who, unfinished)
	}
	// The successor dies too, before it knew what to send.
	if who, unfinished := c.take("k", "c", "", time.Second, now.Add(2*time.Minute)); who != "c" || unfinished != "n" {
		t.Errorf("%q, unfinished %q", who, unfinished)
	}
	c.release("k", "c")
	if _, unfinished := c.take("k", "d", "", time.Second, now.Add(3*time.Minute)); unfinished != "" {
		t.Errorf("unfinished %q after it was given back", unfinished)
	}
	c.take("k", "d", "n2", time.Second, now.Add(3*time.Minute))
	c.sweep(now.Add(2 * time.Hour))
	if len(c.held) > 0 {
		t.Error("it is kept for ever")
	}
}

func TestWhatTheLogForgotIsNoRepetition(t *testing.T) {
	const repeat = 4 * time.Hour
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	to := &nflogpb.Receiver{GroupName: "r", Integration: "webhook"}
	name := func(before *nflogpb.Entry, began, now time.Time) string {
		alerts := []*alert.Alert{{Alert: model.Alert{StartsAt: began.Add(time.Hour)}}, {Alert: model.Alert{StartsAt: began}}}
		return nameOf("t", to, "g", lastOf(before, alerts, now, repeat), []uint64{1, 2}, nil)
	}
	sent := began.Add(30 * time.Second)
	first := name(nil, began, sent)
	if name(nil, began.Add(9*time.Hour), sent.Add(9*time.Hour)) == first {
		t.Error("an incident has the name of one before it")
	}
	if name(nil, began, sent.Add(2*repeat)) == first {
		t.Error("what is sent after the end of a long silence has the name of what was sent before it")
	}
	if name(nil, began.Add(20*time.Millisecond), sent.Add(time.Minute)) != first {
		t.Error("a successor to which the alert came at another moment names it differently")
	}
	logged := &nflogpb.Entry{Timestamp: timestamppb.New(began)}
	if name(logged, began, sent) == first || name(logged, began, sent) != name(logged, began.Add(time.Hour), sent.Add(repeat)) {
		t.Error("what follows on a notification is not named by that")
	}
}
