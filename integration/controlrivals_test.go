package integration

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/amp"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// rivalCalls is how many calls a rival makes between two kills at most: how long it takes to find an order of all
// grows with their number, and that must not be the speed of the machine.
const rivalCalls = 15

// rivalCaller changes documents that others change at the same moment, and notes what it sees.
type rivalCaller struct {
	workspace string
	nodes     []*harness.Node
	rnd       *rand.Rand
	clock     *atomic.Int64
	id, n     int
	history   []porcupine.Operation
}

// rivalDeed is one call on a rule file, or on the definition if its name is empty.
type rivalDeed struct {
	file, kind, text, tag string
}

// rivalOutcome is what came of one; unknown: nobody heard, and it may come to pass at any time.
type rivalOutcome struct {
	unknown, done bool
	text, tag     string
}

// rivalState is a document as the model sees it; an empty text: there is none.
type rivalState struct{ text, tag string }

// newRivalry makes a workspace that rivals fight for.
func newRivalry(ctx context.Context, t *testing.T, nodes []*harness.Node, rivals int) []*rivalCaller {
	t.Helper()
	made, err := workspaces(nodes[0].URL(""), 3).CreateWorkspace(ctx, &amp.CreateWorkspaceInput{Alias: aws.String("rivals")})
	must(t, err)
	var clock atomic.Int64
	out := make([]*rivalCaller, rivals)
	for i := range out {
		out[i] = &rivalCaller{workspace: *made.WorkspaceId, nodes: nodes, rnd: rand.New(rand.NewPCG(uint64(i), 2)), clock: &clock, id: i}
	}
	return out
}

// step makes one random call, again until a replica answers it or, now and then, not.
func (r *rivalCaller) step(ctx context.Context) {
	r.n++
	d := rivalDeed{[]string{"", "a"}[r.rnd.IntN(2)], []string{"create", "put", "put", "delete", "get", "get", "tag"}[r.rnd.IntN(7)], fmt.Sprint(r.rnd.IntN(3)), fmt.Sprint(r.rnd.IntN(3))}
	if d.file == "" && d.kind == "tag" {
		return
	}
	token := aws.String(fmt.Sprintf("rival-%d-%d", r.id, r.n))
	began := r.clock.Add(1)
	o := rivalOutcome{unknown: true}
	for ctx.Err() == nil {
		client := workspaces(r.nodes[r.rnd.IntN(len(r.nodes))].URL(""), 1)
		var err error
		if o.text, o.tag, err = r.call(ctx, client, d, token); err == nil || finalAnswer(err) {
			o.unknown, o.done = false, err == nil
			break
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			continue // nobody heard it
		}
		// A tag has no token: a call made again would be another one.
		if d.kind == "tag" || d.kind != "get" && r.rnd.IntN(8) == 0 {
			break
		}
	}
	ended := r.clock.Add(1)
	if o.unknown {
		ended = math.MaxInt64
	}
	r.history = append(r.history, porcupine.Operation{ClientId: r.id, Input: d, Call: began, Output: o, Return: ended})
}

func rivalRules(text string) []byte {
	return fmt.Appendf(nil, "groups:\n- name: g\n  rules:\n  - record: a\n    expr: vector(%s)\n", text)
}

func rivalDefinition(text string) []byte {
	return fmt.Appendf(nil, "# %s\nalertmanager_config: |\n  route: {receiver: a}\n  receivers: [{name: a}]\n", text)
}

// textIn finds which text it is.
func textIn(data []byte, of func(string) []byte) string {
	for n := range 3 {
		if text := fmt.Sprint(n); string(of(text)) == string(data) {
			return text
		}
	}
	return fmt.Sprintf("unknown: %q", data)
}

// call makes one call, and says what it read.
func (r *rivalCaller) call(ctx context.Context, c *amp.Client, d rivalDeed, token *string) (text, tag string, err error) {
	if d.file == "" {
		text, err = r.callDefinition(ctx, c, d, token)
		return text, "", err
	}
	ws, name, data := &r.workspace, &d.file, rivalRules(d.text)
	switch d.kind {
	case "create":
		_, err = c.CreateRuleGroupsNamespace(ctx, &amp.CreateRuleGroupsNamespaceInput{WorkspaceId: ws, Name: name, Data: data, Tags: map[string]string{"k": d.tag}, ClientToken: token})
	case "put":
		_, err = c.PutRuleGroupsNamespace(ctx, &amp.PutRuleGroupsNamespaceInput{WorkspaceId: ws, Name: name, Data: data, ClientToken: token})
	case "delete":
		_, err = c.DeleteRuleGroupsNamespace(ctx, &amp.DeleteRuleGroupsNamespaceInput{WorkspaceId: ws, Name: name, ClientToken: token})
	case "tag":
		arn := aws.String("arn:aws:aps:us-east-1:000000000000:rulegroupsnamespace/" + r.workspace + "/" + d.file)
		_, err = c.TagResource(ctx, &amp.TagResourceInput{ResourceArn: arn, Tags: map[string]string{"k": d.tag}})
	default:
		var out *amp.DescribeRuleGroupsNamespaceOutput
		if out, err = c.DescribeRuleGroupsNamespace(ctx, &amp.DescribeRuleGroupsNamespaceInput{WorkspaceId: ws, Name: name}); err == nil {
			return textIn(out.RuleGroupsNamespace.Data, rivalRules), out.RuleGroupsNamespace.Tags["k"], nil
		}
	}
	return "", "", err
}

func (r *rivalCaller) callDefinition(ctx context.Context, c *amp.Client, d rivalDeed, token *string) (text string, err error) {
	ws, data := &r.workspace, rivalDefinition(d.text)
	switch d.kind {
	case "create":
		_, err = c.CreateAlertManagerDefinition(ctx, &amp.CreateAlertManagerDefinitionInput{WorkspaceId: ws, Data: data, ClientToken: token})
	case "put":
		_, err = c.PutAlertManagerDefinition(ctx, &amp.PutAlertManagerDefinitionInput{WorkspaceId: ws, Data: data, ClientToken: token})
	case "delete":
		_, err = c.DeleteAlertManagerDefinition(ctx, &amp.DeleteAlertManagerDefinitionInput{WorkspaceId: ws, ClientToken: token})
	default:
		var out *amp.DescribeAlertManagerDefinitionOutput
		if out, err = c.DescribeAlertManagerDefinition(ctx, &amp.DescribeAlertManagerDefinitionInput{WorkspaceId: ws}); err == nil {
			return textIn(out.AlertManagerDefinition.Data, rivalDefinition), nil
		}
	}
	return "", err
}

// stepOfRival says whether o may come of d, and what is there then.
func stepOfRival(s rivalState, d rivalDeed, o rivalOutcome) (bool, rivalState) {
	there := s.text != ""
	next, done := s, there
	switch d.kind {
	case "create":
		done, next = !there, rivalState{d.text, d.tag}
		if d.file == "" {
			next.tag = ""
		}
	case "put":
		next.text = d.text
	case "delete":
		next = rivalState{}
	case "tag":
		next.tag = d.tag
	default:
		return o.unknown || o.done == there && (!there || s == rivalState{o.text, o.tag}), s
	}
	if !done {
		next = s
	}
	return o.unknown || o.done == done, next
}

// checkRivalry wants one order of all calls that gives every answer.
func checkRivalry(t *testing.T, rivals []*rivalCaller) {
	t.Helper()
	all := map[string][]porcupine.Operation{}
	unknown := 0
	for _, r := range rivals {
		for _, o := range r.history {
			file := o.Input.(rivalDeed).file
			all[file] = append(all[file], o)
			if o.Output.(rivalOutcome).unknown {
				unknown++
			}
		}
	}
	model := porcupine.Model{
		Init: func() any { return rivalState{} },
		Step: func(state, input, output any) (bool, any) {
			return stepOfRival(state.(rivalState), input.(rivalDeed), output.(rivalOutcome))
		},
	}
	for file, history := range all {
		t.Logf("%d calls of rivals on %q, %d without an answer", len(history), file, unknown)
		if got := porcupine.CheckOperationsTimeout(model, history, time.Minute); got != porcupine.Ok {
			slices.SortFunc(history, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
			for _, o := range history {
				t.Logf("%d-%d rival %d %+v: %+v", o.Call, o.Return, o.ClientId, o.Input, o.Output)
			}
			t.Errorf("no order of the calls on %q gives these answers: %v", file, got)
		}
	}
}
