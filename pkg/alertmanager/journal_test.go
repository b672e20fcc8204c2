package alertmanager

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/tenant"
	pb "github.com/amphora-metrics/amphora/pkg/wire/alertmanagerpb"
)

// killAll leaves the replicas of c as if all of them were killed at once: nobody reaches them any more, and
// what they have on disk is all that there is. It returns a fleet of their disks, without object storage.
func (c *fleet) killAll(t *testing.T) *fleet {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := newFleet(t, 0)
	out.limits = c.limits
	for name, dir := range c.dirs {
		to := t.TempDir()
		if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		out.dirs[name] = to
		out.nodes[name] = nil
	}
	for id, doc := range c.docs {
		out.docs[id] = doc
	}
	c.order = nil
	return out
}

func (c *fleet) silence(t *testing.T, id tenant.ID, name string) string {
	t.Helper()
	body := c.done(t, id, "POST", "/api/v2/silences", `{"matchers":[{"name":"alertname","value":"`+name+`","isRegex":false}],"startsAt":"2020-01-01T00:00:00Z","endsAt":"2099-01-01T00:00:00Z","createdBy":"x","comment":"y"}`)
	var out struct{ SilenceID string }
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("silence: %s, %v", body, err)
	}
	return out.SilenceID
}

// TestWhatWasAcknowledgedOutlivesTheDeathOfAllReplicas kills all replicas right after a silence was
// acknowledged and alerts were notified. The next ones know both, without object storage.
func TestWhatWasAcknowledgedOutlivesTheDeathOfAllReplicas(t *testing.T) {
	c := newFleet(t, 3)
	h := newHook(t, nil)
	c.put(t, "t", h.url)
	c.alert(t, "t", "a")
	eventually(t, "a is known to be notified", func() bool {
		_, body := c.request(t, "t", "GET", "/api/v1/decisions?filter=alertname%3Da", "")
		return h.count("a") == 1 && strings.Contains(body, `"outcome":"sent"`)
	})
	ended := c.silence(t, "t", "ended")
	c.done(t, "t", "DELETE", "/api/v2/silence/"+ended, "")
	id := c.silence(t, "t", "quiet")
	c = c.killAll(t)
	for i := range 3 {
		c.start(t, fmt.Sprintf("am-%d", i))
	}
	for _, name := range []string{"a", "quiet", "ended", "b"} {
		c.alert(t, "t", name)
	}
	for name, want := range map[string]string{id: `"state":"active"`, ended: `"state":"expired"`} {
		eventually(t, "the silence is known", func() bool {
			status, body := c.request(t, "t", "GET", "/api/v2/silence/"+name, "")
			return status == 200 && strings.Contains(body, want)
		})
	}
	eventually(t, "b and ended are notified", func() bool { return h.count("b") == 1 && h.count("ended") == 1 })
	eventually(t, "a and quiet are decided", func() bool {
		_, body := c.request(t, "t", "GET", "/api/v1/decisions", "")
		return strings.Contains(body, "silenced by "+id) && strings.Count(body, outcomeUnchanged) > 0
	})
	<-time.After(2 * time.Second) // every replica's groups flush several times
	if h.count("a") != 1 || h.count("quiet") != 0 {
		t.Errorf("a notified %d times, the silenced one %d times", h.count("a"), h.count("quiet"))
	}
}

// TestOneReplicaAloneDoesNotDecideAfterTheDeathOfAll: a quorum knows each silence, and the first that
// returns may not.
func TestOneReplicaAloneDoesNotDecideAfterTheDeathOfAll(t *testing.T) {
	c := newFleet(t, 3)
	h := newHook(t, nil)
	c.put(t, "t", h.url)
	c.cut("am-2") // it misses the silence
	c.silence(t, "t", "quiet")
	c = c.killAll(t)
	m := c.start(t, "am-2")
	in, err := m.instance(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := in.alerts.Put(t.Context(), fromWire(&pb.Alert{Labels: map[string]string{"alertname": "quiet"}, StartsAt: time.Now().UnixNano(),
		EndsAt: time.Now().Add(time.Hour).UnixNano(), UpdatedAt: time.Now().UnixNano()})); err != nil {
		t.Fatal(err)
	}
	<-time.After(time.Second)
	if in.isSettled() {
		t.Error("it knows all, having heard of nobody")
	}
	c.start(t, "am-1")
	eventually(t, "the silence holds at the replica that missed it", func() bool {
		_, body := c.request(t, "t", "GET", "/api/v1/decisions?filter=alertname%3Dquiet", "")
		return strings.Contains(body, "silenced by ")
	})
	if h.count("quiet") != 0 {
		t.Error("the silenced alert was notified")
	}
}

// TestTheJournalKeepsWhatIsNeededAndNoMore rewrites it: what runs here and what is still to start stays,
// what was deleted and what others run goes.
func TestTheJournalKeepsWhatIsNeededAndNoMore(t *testing.T) {
	dir := t.TempDir()
	c := newFleet(t, 1)
	c.put(t, "runs", "http://127.0.0.1:1")
	id := c.silence(t, "runs", "quiet")
	in, err := c.nodes["am-0"].instance(t.Context(), "runs")
	if err != nil {
		t.Fatal(err)
	}
	full, err := in.durable()
	if err != nil {
		t.Fatal(err)
	}
	open := func() *journal {
		j, err := openJournal(t.Context(), dir, slog.New(slog.DiscardHandler), newMetrics(prometheus.NewRegistry()))
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open()
	for _, x := range []tenant.ID{"deleted", "waits", "moved"} {
		if _, err := j.add(journalSilences, x, full.GetSilences()).Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	j.forget("deleted")
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	j = open()
	if err := j.rewrite(t.Context(), func(x tenant.ID) bool { return x == "waits" }, func() []*instance { return []*instance{in} }); err != nil {
		t.Fatal(err)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	j = open()
	defer func() { _ = j.close() }()
	for x, want := range map[tenant.ID]bool{"runs": true, "waits": true, "deleted": false, "moved": false} {
		got := false
		for _, s := range j.kept[x] {
			got = got || strings.Contains(string(s.GetSilences()), id)
		}
		if got != want {
			t.Errorf("%s: kept %v, want %v", x, got, want)
		}
	}
}

// TestASilenceIsNotAcknowledgedBeforeItIsOnDisk: with a journal that takes nothing it is refused.
func TestASilenceIsNotAcknowledgedBeforeItIsOnDisk(t *testing.T) {
	c := newFleet(t, 1)
	c.put(t, "t", "http://127.0.0.1:1")
	c.silence(t, "t", "before")
	if err := c.nodes["am-0"].journal.close(); err != nil {
		t.Fatal(err)
	}
	status, body := c.request(t, "t", "POST", "/api/v2/silences", `{"matchers":[{"name":"a","value":"b","isRegex":false}],"startsAt":"2020-01-01T00:00:00Z","endsAt":"2099-01-01T00:00:00Z","createdBy":"x","comment":"y"}`)
	if status != 503 || !strings.Contains(body, "journal") {
		t.Errorf("%d %s", status, body)
	}
}

// FuzzJournalRecord: whatever lies on the disk is read or refused.
func FuzzJournalRecord(f *testing.F) {
	f.Add(encodeRecord(journalSilences, "t", []byte("\x00")))
	f.Add([]byte("n\x05t"))
	f.Fuzz(func(t *testing.T, rec []byte) {
		kind, id, data, err := decodeRecord(rec)
		if err != nil {
			return
		}
		if k, i, d, err := decodeRecord(encodeRecord(kind, id, data)); err != nil || k != kind || i != id || string(d) != string(data) {
			t.Errorf("%q %q %q became %q %q %q, %v", kind, id, data, k, i, d, err)
		}
		total := 0
		err = emitState(id, &pb.State{Silences: data}, func(rec []byte) error {
			_, _, part, err := decodeRecord(rec)
			total += len(part)
			return err
		})
		if err == nil && total != len(data) {
			t.Errorf("%d of %d bytes emitted", total, len(data))
		}
	})
}
