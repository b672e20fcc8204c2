package control

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// shelf is a bucket in memory whose operations take a while. The version of an object is the hash of its bytes, as
// with S3, so that one that comes back cannot be told from what it was.
type shelf struct {
	mu      sync.Mutex // guards what follows
	objects map[string][]byte
	rnd     *rand.Rand
	late    sync.WaitGroup // writes of processes that are dead
}

func newShelf(seed uint64) *shelf {
	return &shelf{objects: map[string][]byte{}, rnd: rand.New(rand.NewPCG(seed, 1))}
}

func hashed(data []byte) string {
	if data == nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// wait takes a while; it does so before an operation and after it, so that another comes in between.
func (s *shelf) wait() {
	s.mu.Lock()
	d := time.Duration(s.rnd.IntN(20)) * time.Millisecond
	s.mu.Unlock()
	<-time.After(d)
}

func (s *shelf) Read(_ context.Context, name string) (bucket.Object, error) {
	s.wait()
	defer s.wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.objects[name]
	if !ok {
		return bucket.Object{}, bucket.ErrAbsent
	}
	return bucket.Object{Name: name, Data: slices.Clone(data), Size: int64(len(data)), Version: hashed(data), Modified: time.Unix(0, 0)}, nil
}

func (s *shelf) Swap(_ context.Context, name string, data []byte, expect string) (string, error) {
	s.wait()
	defer s.wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if hashed(s.objects[name]) != expect {
		return "", bucket.ErrChanged
	}
	s.objects[name] = slices.Clone(data)
	return hashed(data), nil
}

func (s *shelf) Remove(_ context.Context, name, expect string) error {
	s.wait()
	defer s.wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := hashed(s.objects[name]); now == "" || now != expect {
		return bucket.ErrChanged
	}
	delete(s.objects, name)
	return nil
}

func (s *shelf) List(_ context.Context, prefix string) ([]bucket.Object, error) {
	s.wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []bucket.Object
	for _, name := range slices.Sorted(maps.Keys(s.objects)) {
		if strings.HasPrefix(name, prefix) {
			out = append(out, bucket.Object{Name: name, Size: int64(len(s.objects[name])), Version: hashed(s.objects[name]), Modified: time.Unix(0, 0)})
		}
	}
	return out, nil
}

func (*shelf) Close() error { return nil }

// zombies is a bucket whose last write of a process that dies may arrive long after.
type zombies struct {
	fused
	shelf *shelf
}

func (z zombies) Swap(ctx context.Context, name string, data []byte, expect string) (string, error) {
	f, _ := ctx.Value(fuseKey{}).(*fuse)
	if f != nil && f.left == 1 && !f.after {
		z.shelf.late.Go(func() {
			for range 10 {
				z.shelf.wait()
			}
			_, _ = z.shelf.Swap(context.WithoutCancel(ctx), name, data, expect) // nobody is there to hear of it
		})
	}
	return z.fused.Swap(ctx, name, data, expect)
}

// The kinds of what rivals do to a resource.
const (
	opCreate = iota
	opPut
	opDelete
	opGet
	opTag
	opOutsidePut    // by an API that knows of neither tags nor tokens
	opOutsideDelete // by the same
)

// deed is what a rival did.
type deed struct {
	resource string
	kind     int
	data     string
	tag      string
}

// outcome is what came of it. One that nobody heard of may have had its effect, or have it at any time after.
type outcome struct {
	unknown bool
	done    bool // 2xx
	data    string
	tags    string
}

// condition is a resource as the model sees it.
type condition struct {
	there bool
	data  string
	tags  string
}

// lifecycle is the model of a resource: every call is as if it were made at one moment.
func lifecycle(begin map[string]condition) porcupine.Model {
	return porcupine.Model{
		Partition: func(history []porcupine.Operation) (out [][]porcupine.Operation) {
			by := map[string][]porcupine.Operation{}
			for _, o := range history {
				by[o.Input.(deed).resource] = append(by[o.Input.(deed).resource], o)
			}
			for _, name := range slices.Sorted(maps.Keys(by)) {
				first := porcupine.Operation{Input: deed{resource: name, kind: -1}, Call: -2, Return: -1}
				out = append(out, append([]porcupine.Operation{first}, by[name]...))
			}
			return out
		},
		Init: func() any { return condition{} },
		Step: func(state, input, output any) (bool, any) {
			d := input.(deed)
			if d.kind == -1 {
				return true, begin[d.resource]
			}
			return step(state.(condition), d, output.(outcome))
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
	}
}

// step says whether o may come of d, and what is there then.
func step(s condition, d deed, o outcome) (bool, condition) {
	next, done := s, true
	switch d.kind {
	case opCreate:
		done = !s.there
		next = condition{true, d.data, d.tag}
	case opPut:
		done = s.there
		next.data = d.data
	case opDelete:
		done = s.there
		next = condition{}
	case opTag:
		done = s.there
		next.tags = d.tag
	case opGet:
		if o.unknown {
			return true, s
		}
		return o.done == s.there && (!s.there || o.data == s.data && o.tags == s.tags), s
	case opOutsidePut:
		next.there, next.data = true, d.data
	case opOutsideDelete:
		next = condition{}
	}
	if !done {
		next = s
	}
	return o.unknown || o.done == done, next
}

// rival makes calls on resources that others change, too.
type rival struct {
	p       *plane
	id      int
	rnd     *rand.Rand
	clock   *atomic.Int64
	texts   *docstore.Texts
	history []porcupine.Operation
	n       int
}

// contested is what rivals fight for: how each kind of deed is called.
type contested struct {
	name, key string
	calls     map[int]func(d deed, token string) (operation, method, path string, body m)
	read      func(a answered) (data, tags string)
}

func decoded(a answered, path ...string) string {
	data, err := base64.StdEncoding.DecodeString(a.text(path...))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func tagOf(v any) string {
	tags, _ := v.(map[string]any)
	s, _ := tags["k"].(string)
	return s
}

func tagged1(arn string) func(d deed, token string) (string, string, string, m) {
	return func(d deed, _ string) (string, string, string, m) {
		return "TagResource", "POST", "/tags/" + url.PathEscape(arn), m{"tags": m{"k": d.tag}}
	}
}

// texts are a rule file and a definition of a workspace.
func textResources(ws string) []contested {
	at := "/workspaces/" + ws
	const arn = "arn:aws:aps:us-east-1:123456789012:"
	file := func(operation, method, path, query string) func(d deed, token string) (string, string, string, m) {
		return func(d deed, token string) (string, string, string, m) {
			if method == "DELETE" {
				return operation, method, path + "?clientToken=" + token, nil
			}
			body := m{"clientToken": token, "data": []byte(d.data)}
			if strings.HasSuffix(path, "rulegroupsnamespaces") {
				body["name"], body["tags"] = "n", m{"k": d.tag}
			}
			return operation, method, path + query, body
		}
	}
	return []contested{
		{"rules", "rules/" + ws + "/n", map[int]func(deed, string) (string, string, string, m){
			opCreate: file("CreateRuleGroupsNamespace", "POST", at+"/rulegroupsnamespaces", ""),
			opPut:    file("PutRuleGroupsNamespace", "PUT", at+"/rulegroupsnamespaces/n", ""),
			opDelete: file("DeleteRuleGroupsNamespace", "DELETE", at+"/rulegroupsnamespaces/n", ""),
			opGet:    file("DescribeRuleGroupsNamespace", "GET", at+"/rulegroupsnamespaces/n", ""),
			opTag:    tagged1(arn + "rulegroupsnamespace/" + ws + "/n"),
		}, func(a answered) (string, string) {
			return decoded(a, "ruleGroupsNamespace", "data"), tagOf(a.at("ruleGroupsNamespace", "tags"))
		}},
		{"definition", "alerts/" + ws, map[int]func(deed, string) (string, string, string, m){
			opCreate: file("CreateAlertManagerDefinition", "POST", at+"/alertmanager/definition", ""),
			opPut:    file("PutAlertManagerDefinition", "PUT", at+"/alertmanager/definition", ""),
			opDelete: file("DeleteAlertManagerDefinition", "DELETE", at+"/alertmanager/definition", ""),
			opGet:    file("DescribeAlertManagerDefinition", "GET", at+"/alertmanager/definition", ""),
		}, func(a answered) (string, string) { return decoded(a, "alertManagerDefinition", "data"), "" }},
	}
}

// namedResources are a workspace and a scraper, whose data is their alias. Nobody makes them again.
func namedResources(ws, scraper string) []contested {
	call := func(operation, method, path string) func(d deed, token string) (string, string, string, m) {
		return func(d deed, token string) (string, string, string, m) {
			if method == "DELETE" {
				return operation, method, path + "?clientToken=" + token, nil
			}
			return operation, method, path, m{"clientToken": token, "alias": d.data}
		}
	}
	const arn = "arn:aws:aps:us-east-1:123456789012:"
	return []contested{
		{"workspace", "", map[int]func(deed, string) (string, string, string, m){
			opPut: call("UpdateWorkspaceAlias", "POST", "/workspaces/"+ws+"/alias"), opDelete: call("DeleteWorkspace", "DELETE", "/workspaces/"+ws),
			opGet: call("DescribeWorkspace", "GET", "/workspaces/"+ws), opTag: tagged1(arn + "workspace/" + ws),
		}, func(a answered) (string, string) {
			return a.text("workspace", "alias"), tagOf(a.at("workspace", "tags"))
		}},
		{"scraper", "", map[int]func(deed, string) (string, string, string, m){
			opPut: call("UpdateScraper", "PUT", "/scrapers/"+scraper), opDelete: call("DeleteScraper", "DELETE", "/scrapers/"+scraper),
			opGet: call("DescribeScraper", "GET", "/scrapers/"+scraper), opTag: tagged1(arn + "scraper/" + scraper),
		}, func(a answered) (string, string) { return a.text("scraper", "alias"), tagOf(a.at("scraper", "tags")) }},
	}
}

// step does something to one of the resources.
func (v *rival) step(all []contested, kinds []int) {
	v.n++
	r := all[v.rnd.IntN(len(all))]
	kind := kinds[v.rnd.IntN(len(kinds))]
	// Texts come back, so that versions do.
	d := deed{resource: r.name, kind: kind, data: fmt.Sprint("t", v.rnd.IntN(3)), tag: fmt.Sprint("v", v.rnd.IntN(3))}
	if r.name == "definition" {
		d.tag = ""
	}
	began := v.clock.Add(1)
	var o outcome
	if kind >= opOutsidePut {
		o = v.outside(r, d)
	} else if r.calls[kind] == nil {
		return
	} else {
		o = v.ask(r, d)
	}
	ended := v.clock.Add(1)
	if o.unknown {
		ended = math.MaxInt64
	}
	v.history = append(v.history, porcupine.Operation{ClientId: v.id, Input: d, Call: began, Output: o, Return: ended})
}

// ask makes a call at one replica after the other until one answers, or gives up.
func (v *rival) ask(r contested, d deed) outcome {
	token := ""
	if d.kind != opTag && v.rnd.IntN(5) > 0 {
		token = fmt.Sprintf("%d-%d", v.id, v.n)
	}
	operation, method, path, body := r.calls[d.kind](d, token)
	if token == "" {
		path, _, _ = strings.Cut(path, "?")
		delete(body, "clientToken")
	}
	for {
		f := &fuse{left: 1 + v.rnd.IntN(8), after: v.rnd.IntN(2) == 0}
		if v.rnd.IntN(3) == 0 {
			f.left = math.MaxInt
		}
		a := v.p.callWith(f.lit(v.p.t.Context()), v.rnd.IntN(len(v.p.replicas)), operation, method, path, body)
		f.cancel()
		switch {
		case !f.burnt && a.status < 500:
			o := outcome{done: a.status/100 == 2}
			if a.status != 404 && a.status != 409 && !o.done {
				v.p.t.Errorf("%s answers %d %v", operation, a.status, a.body)
			}
			if d.kind == opGet && o.done {
				o.data, o.tags = r.read(a)
				for _, of := range []string{"workspace", "scraper"} {
					o.done = o.done && a.text(of, "status", "statusCode") != deleting
				}
			}
			return o
		case d.kind == opGet:
		case token == "" || v.rnd.IntN(6) == 0: // nobody knows, and nobody asks again
			return outcome{unknown: true}
		}
		<-time.After(time.Duration(v.rnd.IntN(300)) * time.Millisecond) // for others to be faster
	}
}

// outside changes the text as rulers and alertmanagers do.
func (v *rival) outside(r contested, d deed) outcome {
	ctx := v.p.t.Context()
	for {
		old, err := v.texts.Get(ctx, r.key)
		switch {
		case err != nil && errs.KindOf(err) != errs.NotFound:
		case d.kind == opOutsidePut:
			if err != nil {
				old.Version = ""
			}
			_, err = v.texts.Put(ctx, r.key, []byte(d.data), old.Version)
		case err == nil:
			err = v.texts.Delete(ctx, r.key, old.Version)
		}
		if errs.KindOf(err) == errs.Conflict {
			continue
		}
		if err != nil && (d.kind == opOutsidePut || errs.KindOf(err) != errs.NotFound) {
			v.p.t.Errorf("outside: %v", err)
		}
		return outcome{done: true}
	}
}

// fight has rivals do things to resources of one plane, and checks that what they saw can have been.
func fight(t *testing.T, seed uint64, rivals, steps int, kinds []int, prepare func(p *plane) ([]contested, map[string]condition)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newShelf(seed)
		p := planeOver(t, Config{}, 3, func() bucket.Conditional { return zombies{fused{s}, s} })
		all, begin := prepare(p)
		var clock atomic.Int64
		var wg sync.WaitGroup
		vs := make([]*rival, rivals)
		for i := range vs {
			vs[i] = &rival{p: p, id: i, rnd: rand.New(rand.NewPCG(seed, uint64(i))), clock: &clock, texts: docstore.NewTexts(p.docs, nil)}
			wg.Go(func() {
				for range steps {
					vs[i].step(all, kinds)
				}
			})
		}
		wg.Wait()
		s.late.Wait()
		for range 2 * len(all) {
			vs[0].step(all, []int{opGet})
		}
		var history []porcupine.Operation
		for _, v := range vs {
			history = append(history, v.history...)
		}
		if !porcupine.CheckOperations(lifecycle(begin), history) {
			t.Errorf("seed %d: no order of these calls gives these answers:", seed)
			slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
			for _, o := range history {
				t.Logf("%d-%d rival %d %+v: %+v", o.Call, o.Return, o.ClientId, o.Input, o.Output)
			}
		}
	})
}

const fights = 60

// TestRivalsSeeOneOrderOfTheirChangesOfTexts has rivals make, replace, tag and delete the same rule file and definition,
// through replicas that die at any operation, some with their last write under way, while another API changes the same
// texts.
func TestRivalsSeeOneOrderOfTheirChangesOfTexts(t *testing.T) {
	kinds := []int{opCreate, opCreate, opPut, opPut, opDelete, opGet, opGet, opTag, opOutsidePut, opOutsideDelete}
	for seed := range uint64(fights) {
		fight(t, seed, 4, 12, kinds, func(p *plane) ([]contested, map[string]condition) {
			return textResources(p.create(m{"alias": "a"})), nil
		})
	}
}

// TestRivalsSeeOneOrderOfTheirChangesOfWorkspacesAndScrapers is the same for what is never made again.
func TestRivalsSeeOneOrderOfTheirChangesOfWorkspacesAndScrapers(t *testing.T) {
	kinds := []int{opPut, opPut, opPut, opTag, opGet, opDelete}
	for seed := range uint64(fights) {
		fight(t, seed, 4, 6, kinds, func(p *plane) ([]contested, map[string]condition) {
			id, other := p.create(m{"alias": "t0"}), p.create(m{"alias": "other"})
			scraper := withScraper(other, "first")
			scraper["alias"] = "t0"
			made := p.want(p.call(0, "CreateScraper", "POST", "/scrapers", scraper), 202, "")
			return namedResources(id, made.text("scraperId")), map[string]condition{"workspace": {true, "t0", ""}, "scraper": {true, "t0", ""}}
		})
	}
}

// TestTheModelRefusesWhatCannotHaveBeen keeps the checker honest.
func TestTheModelRefusesWhatCannotHaveBeen(t *testing.T) {
	do := func(call, end int64, d deed, o outcome) porcupine.Operation {
		d.resource = "r"
		return porcupine.Operation{Input: d, Output: o, Call: call, Return: end}
	}
	made := do(0, 1, deed{kind: opCreate, data: "a"}, outcome{done: true})
	for name, history := range map[string][]porcupine.Operation{
		"a lost update":    {made, do(2, 3, deed{kind: opPut, data: "b"}, outcome{done: true}), do(4, 5, deed{kind: opGet}, outcome{done: true, data: "a"})},
		"two creations":    {made, do(0, 3, deed{kind: opCreate, data: "b"}, outcome{done: true})},
		"mixed tags":       {do(0, 3, deed{kind: opCreate, data: "b", tag: "v"}, outcome{}), made, do(4, 5, deed{kind: opGet}, outcome{done: true, data: "a", tags: "v"})},
		"a late deletion":  {made, do(2, 9, deed{kind: opDelete}, outcome{done: true}), do(3, 4, deed{kind: opGet}, outcome{}), do(5, 6, deed{kind: opGet}, outcome{done: true, data: "a"})},
		"a put that 404ed": {made, do(2, 3, deed{kind: opPut, data: "b"}, outcome{}), do(4, 5, deed{kind: opDelete}, outcome{done: true})},
	} {
		if porcupine.CheckOperations(lifecycle(nil), history) {
			t.Errorf("%s passes", name)
		}
	}
	unheard := do(2, math.MaxInt64, deed{kind: opPut, data: "b"}, outcome{unknown: true})
	for _, data := range []string{"a", "b"} {
		if !porcupine.CheckOperations(lifecycle(nil), []porcupine.Operation{made, unheard, do(4, 5, deed{kind: opGet}, outcome{done: true, data: data})}) {
			t.Errorf("that a call nobody heard of left %s does not pass", data)
		}
	}
}
