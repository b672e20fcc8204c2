package admin

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

type fakeRing struct {
	members []RingMember
	forgot  []string
}

func (f *fakeRing) Members(context.Context) ([]RingMember, error) { return f.members, nil }

func (f *fakeRing) Forget(_ context.Context, id string) error {
	if id == "alive" {
		return errs.New(errs.Conflict, "it is alive")
	}
	f.forgot = append(f.forgot, id)
	return nil
}

func TestARingIsAPageAndJSON(t *testing.T) {
	const evil = `<script>alert(1)</script>`
	at := time.Unix(1_700_000_000, 0).UTC()
	f := &fakeRing{members: []RingMember{
		{ID: "a-0", State: "ACTIVE", Zone: "a", Address: "10.0.0.1:9095", Heartbeat: at, Registered: at, Tokens: []uint32{7, 8}, Ownership: 33.333},
		{ID: evil, State: "UNHEALTHY", Zone: evil, ReadOnly: true, ReadOnlyUpdated: at, Note: evil},
	}}
	h := Ring("ring", "Ring", f)
	page := call(h, "GET", "/", "").Body.String()
	for _, want := range []string{"a-0", "33.33 %", "2023-11-14T22:13:20Z", `class="bad">UNHEALTHY`, `name="forget" value="a-0"`, "Show tokens"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page:\n%s", want, page)
		}
	}
	if strings.Contains(page, "<script") || strings.Contains(page, "<h2>a-0") {
		t.Errorf("the page has a script, or tokens that nobody asked for:\n%s", page)
	}
	if page := call(h, "GET", "/?tokens=true", "").Body.String(); !strings.Contains(page, "<h2>a-0</h2><p>7 8 </p>") {
		t.Errorf("no tokens:\n%s", page)
	}
	var got struct {
		Shards []map[string]any
		Now    time.Time
	}
	if err := json.Unmarshal(call(h, "GET", "/", "", "Accept", "application/json").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	first := got.Shards[0]
	if len(got.Shards) != 2 || got.Now.IsZero() || first["id"] != "a-0" || first["state"] != "ACTIVE" || first["timestamp"] != "2023-11-14T22:13:20Z" ||
		first["address"] != "10.0.0.1:9095" || first["zone"] != "a" || first["read_only"] != false || first["ownership"] != 33.333 || len(first["tokens"].([]any)) != 2 {
		t.Errorf("JSON: %v", got)
	}
	f.members = nil
	if body := call(h, "GET", "/", "", "Accept", "application/json").Body.String(); !strings.Contains(body, `"shards":[]`) {
		t.Errorf("an empty ring: %s", body)
	}
}

func TestAMemberIsForgottenByAForm(t *testing.T) {
	f := &fakeRing{}
	h := Ring("ring", "Ring", f)
	const form = "application/x-www-form-urlencoded"
	if rec := call(h, "POST", "/", "forget=a+b", "Content-Type", form); rec.Code != 302 || rec.Header().Get("Location") != "#" || len(f.forgot) != 1 || f.forgot[0] != "a b" {
		t.Errorf("%d, forgot %v", rec.Code, f.forgot)
	}
	for body, want := range map[string]int{"forget=alive": 409, "": 400, "forget=%zz": 400, "forget=" + strings.Repeat("x", maxFormBytes): 400} {
		if rec := call(h, "POST", "/", body, "Content-Type", form); rec.Code != want {
			t.Errorf("%.20s: %d %s, want %d", body, rec.Code, rec.Body, want)
		}
	}
	if Ring("ring", "Ring", nil) != nil {
		t.Error("a page of no ring")
	}
}

func TestThereAreNoPartitions(t *testing.T) {
	h := PartitionRing()
	if body := call(h, "GET", "/", "", "Accept", "application/json").Body.String(); body != `{"partitions":[]}` {
		t.Error(body)
	}
	if body := call(h, "GET", "/", "").Body.String(); !strings.Contains(body, "There are no partitions") {
		t.Error(body)
	}
}
