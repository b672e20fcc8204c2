package control

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/bucket"
)

// fused is a bucket that a call loses, as if its process were killed, when the fuse of its context has burnt
// down.
type fused struct{ bucket.Conditional }

type fuseKey struct{}

// fuse ends a call at one of its operations, the first of which is 1: before that is done, or after it, when
// nobody hears of it.
type fuse struct {
	left   int
	after  bool
	burnt  bool
	cancel context.CancelFunc
	// meanwhile is called before the operation at which the call ends; nil: nothing happens then.
	meanwhile func()
}

// lit returns a context for the calls that f ends.
func (f *fuse) lit(ctx context.Context) context.Context {
	ctx, f.cancel = context.WithCancel(ctx)
	return context.WithValue(ctx, fuseKey{}, f)
}

func burn(ctx context.Context, do func() error) error {
	f, _ := ctx.Value(fuseKey{}).(*fuse)
	if f == nil {
		return do()
	}
	if f.left--; f.left > 0 {
		return do()
	}
	if f.left == 0 && f.meanwhile != nil {
		f.meanwhile()
	}
	if f.left == 0 && f.after {
		_ = do() // nobody hears how it went
	}
	f.burnt = true
	f.cancel()
	return ctx.Err()
}

func (b fused) Read(ctx context.Context, name string) (o bucket.Object, err error) {
	err = burn(ctx, func() (err error) { o, err = b.Conditional.Read(ctx, name); return err })
	return o, err
}

func (b fused) Swap(ctx context.Context, name string, data []byte, expect string) (v string, err error) {
	err = burn(ctx, func() (err error) { v, err = b.Conditional.Swap(ctx, name, data, expect); return err })
	return v, err
}

func (b fused) Remove(ctx context.Context, name, expect string) error {
	return burn(ctx, func() error { return b.Conditional.Remove(ctx, name, expect) })
}

// TestADeletionThatWasCutOffIsEndedByTheSameCall kills the process of a Delete at each of its operations. The
// same call, made again elsewhere, says that it is deleted, and it is; made once more, it leaves what was made
// meanwhile.
func TestADeletionThatWasCutOffIsEndedByTheSameCall(t *testing.T) {
	kinds := []struct{ kind, path string }{
		{"AlertManagerDefinition", "alertmanager/definition"},
		{"RuleGroupsNamespace", "rulegroupsnamespaces/n"},
	}
	for _, k := range kinds {
		ended := false
		for at := 1; !ended; at++ {
			for _, after := range []bool{false, true} {
				p := newPlane(t, Config{}, 2)
				id := p.create(m{"alias": "a"})
				path := "/workspaces/" + id + "/" + k.path
				made := func() {
					t.Helper()
					if k.kind == "RuleGroupsNamespace" {
						p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", "/workspaces/"+id+"/rulegroupsnamespaces", m{"name": "n", "data": []byte("a")}), 202, "")
						return
					}
					p.want(p.call(0, "Create"+k.kind, "POST", path, m{"data": []byte("a")}), 202, "")
				}
				remove := func(n int) answered { return p.call(n, "Delete"+k.kind, "DELETE", path+"?clientToken=c", nil) }
				made()
				p.cut = &fuse{left: at, after: after}
				first := remove(0)
				ended = !p.cut.burnt
				p.cut = nil
				name := fmt.Sprintf("%s, cut off at %d, after it: %t (answered %d)", k.kind, at, after, first.status)
				if got := remove(1); got.status != 202 {
					t.Errorf("%s: made again it answers %d %q %v", name, got.status, got.code, got.body)
				}
				if got := p.call(0, "Describe"+k.kind, "GET", path, nil); got.status != 404 {
					t.Errorf("%s: it is there: %d", name, got.status)
				}
				made()
				if got := remove(0); got.status != 202 {
					t.Errorf("%s: a late copy answers %d", name, got.status)
				}
				if got := p.call(1, "Describe"+k.kind, "GET", path, nil); got.status != 200 {
					t.Errorf("%s: a late copy deleted a successor: %d", name, got.status)
				}
			}
			if at > 50 {
				t.Fatal("it does not end")
			}
		}
	}
}

// TestADeletionThatWasCutOffLeavesWhatOthersMade: a rival changes the definition between a Delete that is cut off
// and the same call made again, which deletes what is there unless the first one did already.
func TestADeletionThatWasCutOffLeavesWhatOthersMade(t *testing.T) {
	deletedBefore, deletedNow := 0, 0
	for at := range 12 {
		p := newPlane(t, Config{}, 2)
		id := p.create(m{"alias": "a"})
		path := "/workspaces/" + id + "/alertmanager/definition"
		p.want(p.call(0, "CreateAlertManagerDefinition", "POST", path, m{"data": []byte("a")}), 202, "")
		p.cut = &fuse{left: at/2 + 1, after: at%2 == 1}
		_ = p.call(0, "DeleteAlertManagerDefinition", "DELETE", path+"?clientToken=c", nil)
		p.cut = nil
		gone := p.call(1, "PutAlertManagerDefinition", "PUT", path, m{"data": []byte("b")}).status == 404
		if gone {
			p.want(p.call(1, "CreateAlertManagerDefinition", "POST", path, m{"data": []byte("c")}), 202, "")
			deletedBefore++
		} else {
			deletedNow++
		}
		p.want(p.call(1, "DeleteAlertManagerDefinition", "DELETE", path+"?clientToken=c", nil), 202, "")
		if left := p.call(0, "DescribeAlertManagerDefinition", "GET", path, nil).status == 200; left != gone {
			t.Errorf("cut off at %d: the first call deleted it: %t; what is there now is left: %t", at, gone, left)
		}
	}
	if deletedBefore == 0 || deletedNow == 0 {
		t.Errorf("%d deletions were made by the first call and %d by the second; want both", deletedBefore, deletedNow)
	}
}

// change is a call that is cut off. id of its path is that of a workspace, scraper that of a scraper.
type change struct {
	operation, method, path string
	body                    m
}

// changes are what is made to a workspace and a scraper that are there.
func changes(id, scraper string) []change {
	at := "/workspaces/" + id
	blob := m{"configurationBlob": "YQ=="}
	return []change{
		{"CreateWorkspace", "POST", "/workspaces", m{"alias": "b", "clientToken": "c"}},
		{"UpdateWorkspaceAlias", "POST", at + "/alias", m{"alias": "b", "clientToken": "c"}},
		{"CreateRuleGroupsNamespace", "POST", at + "/rulegroupsnamespaces", m{"name": "m", "data": []byte("a"), "clientToken": "c"}},
		{"PutRuleGroupsNamespace", "PUT", at + "/rulegroupsnamespaces/n", m{"data": []byte("b"), "clientToken": "c"}},
		{"PutAlertManagerDefinition", "PUT", at + "/alertmanager/definition", m{"data": []byte("b"), "clientToken": "c"}},
		{"DeleteWorkspace", "DELETE", at + "?clientToken=c", nil},
		{"CreateScraper", "POST", "/scrapers", withScraper(id, "c")},
		{"UpdateScraper", "PUT", "/scrapers/" + scraper, m{"alias": "b", "scrapeConfiguration": blob, "clientToken": "c"}},
		{"DeleteScraper", "DELETE", "/scrapers/" + scraper + "?clientToken=c", nil},
	}
}

func withScraper(workspace, token string) m {
	return m{"clientToken": token, "scrapeConfiguration": m{"configurationBlob": "YQ=="},
		"destination": m{"ampConfiguration": m{"workspaceArn": "arn:aws:aps:us-east-1:123456789012:workspace/" + workspace}},
		"source":      m{"eksConfiguration": m{"clusterArn": "arn:aws:eks:us-east-1:123456789012:cluster/c", "subnetIds": []string{"subnet-1"}}}}
}

// cutOff cuts change number i off at one of its operations, has it made again elsewhere, and says whether it was
// over before.
func cutOff(t *testing.T, i, at int, after bool) (ended bool) {
	t.Helper()
	p := newPlane(t, Config{}, 2)
	id := p.create(m{"alias": "a"})
	p.want(p.call(0, "CreateAlertManagerDefinition", "POST", "/workspaces/"+id+"/alertmanager/definition", m{"data": []byte("a")}), 202, "")
	p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", "/workspaces/"+id+"/rulegroupsnamespaces", m{"name": "n", "data": []byte("a")}), 202, "")
	c := changes(id, p.want(p.call(0, "CreateScraper", "POST", "/scrapers", withScraper(id, "first")), 202, "").text("scraperId"))[i]
	p.cut = &fuse{left: at, after: after}
	first := p.call(0, c.operation, c.method, c.path, c.body)
	ended = !p.cut.burnt
	p.cut = nil
	name := fmt.Sprintf("%s, cut off at %d, after it: %t (answered %d)", c.operation, at, after, first.status)
	if got := p.call(1, c.operation, c.method, c.path, c.body); got.status/100 != 2 || ended && got.status != first.status {
		t.Errorf("%s: made again it answers %d %q %v", name, got.status, got.code, got.body)
	}
	for _, kind := range []string{"Workspace", "Scraper"} {
		list, _ := p.call(0, "List"+kind+"s", "GET", "/"+strings.ToLower(kind)+"s", nil).body[strings.ToLower(kind)+"s"].([]any)
		want, ok := map[string]int{"Create" + kind: 2, "Delete" + kind: 0}[c.operation]
		if !ok {
			want = 1
		}
		if c.operation != "DeleteWorkspace" && len(list) != want || c.operation == "DeleteWorkspace" && kind == "Workspace" && len(list) != 0 {
			t.Errorf("%s: there are %d %ss", name, len(list), kind)
		}
	}
	return ended
}

// TestCallsThatWereCutOffAreEndedByTheSameCall kills the process of every other change at each of its
// operations, and makes the same call again elsewhere, which answers as if nothing had happened.
func TestCallsThatWereCutOffAreEndedByTheSameCall(t *testing.T) {
	for i := range changes("", "") {
		for at := 1; ; at++ {
			before, after := cutOff(t, i, at, false), cutOff(t, i, at, true)
			if before && after {
				break
			}
			if at > 60 {
				t.Fatal("it does not end")
			}
		}
	}
}

// left are the documents of a workspace that other services read.
func (p *plane) left(id string) (out []string) {
	p.t.Helper()
	for _, from := range []string{"rules/" + id + "/", "alerts/" + id} {
		entries, err := p.docs.List(p.t.Context(), from)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, e.Key)
		}
	}
	return out
}

// TestNothingIsLeftInAWorkspaceThatWasDeletedMeanwhile deletes a workspace before each operation of calls that make
// something in it, and kills their process after it: what they left is put away, does not come back as long as the
// workspace is deleted, and is gone with it. What was there comes back when it is restored.
func TestNothingIsLeftInAWorkspaceThatWasDeletedMeanwhile(t *testing.T) {
	strays := 0
	for _, k := range []struct{ operation, path string }{{"CreateRuleGroupsNamespace", "rulegroupsnamespaces"}, {"CreateAlertManagerDefinition", "alertmanager/definition"}} {
		for at, ended := 1, false; !ended; at++ {
			p := newPlane(t, Config{PurgeAfter: 24 * time.Hour}, 2)
			id := p.create(m{"alias": "a"})
			p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", "/workspaces/"+id+"/rulegroupsnamespaces", m{"name": "old", "data": []byte("a")}), 202, "")
			f := &fuse{left: at, after: true}
			f.meanwhile = func() {
				p.cut = nil
				p.want(p.call(1, "DeleteWorkspace", "DELETE", "/workspaces/"+id, nil), 202, "")
			}
			p.cut = f
			_ = p.call(0, k.operation, "POST", "/workspaces/"+id+"/"+k.path, m{"name": "new", "data": []byte("a")})
			if ended = !f.burnt; ended {
				break
			}
			name := fmt.Sprintf("%s, cut off at %d", k.operation, at)
			if len(p.left(id)) > 0 {
				strays++
			}
			if err := p.replicas[1].cleanAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			if left := p.left(id); len(left) > 0 {
				t.Errorf("%s: there are %v", name, left)
			}
			if err := p.replicas[0].Restore(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			if err := p.replicas[1].cleanAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.want(p.call(0, "DescribeRuleGroupsNamespace", "GET", "/workspaces/"+id+"/rulegroupsnamespaces/old", nil), 200, "")
			p.want(p.call(1, "DeleteWorkspace", "DELETE", "/workspaces/"+id, nil), 202, "")
			if _, err := p.docs.Overwrite(t.Context(), "rules/"+id+"/late", []byte("a")); err != nil {
				t.Fatal(err)
			}
			p.now = p.now.Add(25 * time.Hour)
			if err := p.replicas[1].cleanAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			kept, err := p.docs.List(t.Context(), withdrawnPrefix+id+"/")
			if left := p.left(id); err != nil || len(left)+len(kept) > 0 || len(p.purged) != 1 {
				t.Errorf("%s: purged %v, there are %v and %v, %v", name, p.purged, left, kept, err)
			}
			if at > 50 {
				t.Fatal("it does not end")
			}
		}
	}
	if strays < 2 {
		t.Errorf("%d calls left something behind, want one of each kind: nothing is tested", strays)
	}
}

// TestARestoredWorkspaceKeepsWhatASweepTook: a replica that still takes a workspace for deleted sweeps it while an
// operator restores it.
func TestARestoredWorkspaceKeepsWhatASweepTook(t *testing.T) {
	p := newPlane(t, Config{PurgeAfter: 24 * time.Hour}, 2)
	id := p.create(m{"alias": "a"})
	p.want(p.call(0, "CreateRuleGroupsNamespace", "POST", "/workspaces/"+id+"/rulegroupsnamespaces", m{"name": "n", "data": []byte("a")}), 202, "")
	p.want(p.call(0, "DeleteWorkspace", "DELETE", "/workspaces/"+id, nil), 202, "")
	if err := p.replicas[0].Restore(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := p.replicas[1].sweep(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	p.want(p.call(0, "DescribeRuleGroupsNamespace", "GET", "/workspaces/"+id+"/rulegroupsnamespaces/n", nil), 200, "")
}
