package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// fenced is one fenced block of a page.
type fenced struct {
	page string
	line int
	info []string // the words after the fence
	text string
}

func (b fenced) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

// lang is the language of the block.
func (b fenced) lang() string {
	if len(b.info) == 0 {
		return ""
	}
	return b.info[0]
}

// outside says that the block needs something that is not there: another system, much time, the reader's data.
func (b fenced) outside() bool { return slices.Contains(b.info, "outside") }

// fencedOf reads the fenced blocks of a page; those of lists are indented.
func fencedOf(t *testing.T, page string) []fenced {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", page))
	must(t, err)
	var out []fenced
	var in *fenced
	indent, n := 0, 0
	for line := range strings.Lines(string(data)) {
		n++
		line = strings.TrimRight(line, "\n")
		rest := strings.TrimLeft(line, " ")
		info, fence := strings.CutPrefix(rest, "```")
		switch {
		case fence && in == nil:
			indent = len(line) - len(rest)
			in = &fenced{page: page, line: n, info: strings.Fields(info)}
		case fence:
			out = append(out, *in)
			in = nil
		case in != nil:
			in.text += strings.TrimPrefix(line, strings.Repeat(" ", indent)) + "\n"
		}
	}
	if in != nil {
		t.Fatalf("%s: the block does not end", in)
	}
	return out
}

// docPages are those whose commands are executed.
func docPages(t *testing.T) []string {
	t.Helper()
	out := []string{"README.md", "operations/helm/amphora/README.md", "operations/jsonnet/README.md", "operations/mixin/README.md", "operations/rules-action/README.md", "CONTRIBUTING.md", "development/compose/README.md"}
	docs, err := filepath.Glob("../docs/*.md")
	must(t, err)
	for _, d := range docs {
		out = append(out, "docs/"+filepath.Base(d))
	}
	return out
}

// shells are the languages of commands.
func shells() []string { return []string{"sh", "bash", "shell", "console"} }

// commandLine finds commands in blocks that do not say what they are.
var commandLine = regexp.MustCompile(`(?m)^(\$ )?(curl|make|amphora|amphoratool|amtool|aws|helm|kubectl|jsonnet|docker|go|promtool|mimirtool|cortextool|systemctl|dpkg|rpm|apt-get) `)

// reader is who follows a page: with an empty directory, the programs of the product, and processes of it.
type reader struct {
	page, dir, bin string
	nodes          map[string]*harness.Node
	keys           []string // of the operator, as variables of the environment
}

// TestEveryCommandOfTheDocsDoesWhatItSays executes the shell blocks of all pages, page by page from top to bottom in a
// directory that begins with the files of testdata/docs/<page> and gets those of the blocks that begin with
// a comment with their name. A block that needs something else is marked: "sh outside" after the fence; of
// it the verbs of make and the flags of amphora are checked.
func TestEveryCommandOfTheDocsDoesWhatItSays(t *testing.T) {
	t.Parallel()
	buildTool(t)
	ctx := bounded(t, 5*time.Minute)
	bin := t.TempDir()
	must(t, os.Symlink(binary(ctx, t), filepath.Join(bin, "amphora")))
	must(t, os.Symlink(builtTool.path, filepath.Join(bin, "amphoratool")))
	// An answer that is an error is one for the reader, but status 0 for curl.
	curl, err := exec.LookPath("curl")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(bin, "curl"), []byte("#!/bin/sh\nfor a; do case $a in --*) ;; -*f*) exec "+curl+" \"$@\" ;; esac; done\nexec "+curl+" --fail-with-body --max-time 60 \"$@\"\n"), 0o700))

	credential := filepath.Join(t.TempDir(), "root-credential")
	nodes := map[string]*harness.Node{
		"plain":   everything(ctx, t, "-auth.multitenancy-enabled=false"),
		"tenants": everything(ctx, t, "-compactor.block-upload-enabled=true"),
		"callers": everything(ctx, t, "-auth.enabled", "-auth.root-credential-file="+credential),
	}
	root := rootSigner(t, credential)
	executed := 0
	for _, page := range docPages(t) {
		r := &reader{page: page, dir: t.TempDir(), bin: bin, nodes: nodes, keys: []string{"AWS_ACCESS_KEY_ID=" + root.AccessKey, "AWS_SECRET_ACCESS_KEY=" + root.Secret}}
		if files := filepath.Join("testdata", "docs", strings.TrimSuffix(filepath.Base(page), ".md")); exists(files) && strings.HasPrefix(page, "docs/") {
			must(t, os.CopyFS(r.dir, os.DirFS(files)))
		}
		for _, b := range fencedOf(t, page) {
			executed += r.follow(ctx, t, b)
		}
	}
	if executed < 15 {
		t.Errorf("only %d blocks were executed", executed)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// fileName is the comment that names the file of a block.
var fileName = regexp.MustCompile(`^(?:#|//) ([a-z0-9_./-]+\.(?:yaml|yml|json|toml))\b`)

// follow does what a block says, and returns how many were executed.
func (r *reader) follow(ctx context.Context, t *testing.T, b fenced) int {
	t.Helper()
	switch {
	case b.outside():
		r.lookAt(ctx, t, b)
	case slices.Contains(shells(), b.lang()):
		r.execute(ctx, t, b)
		return 1
	case b.lang() == "" && commandLine.MatchString(b.text):
		t.Errorf("%s has commands: begin it with ```sh, so that they are executed, or with ```sh outside", b)
	default:
		if m := fileName.FindStringSubmatch(b.text); m != nil {
			path := filepath.Join(r.dir, m[1])
			must(t, os.MkdirAll(filepath.Dir(path), 0o700))
			must(t, os.WriteFile(path, []byte(b.text), 0o600))
		}
	}
	return 0
}

// signedCalls are of clients that must prove who they are.
var signedCalls = regexp.MustCompile(`amphoratool (workspace|iam|audit)|--aws-sigv4`)

// node is the process that a block is about: one without tenants, one with, or one that asks who calls.
func (r *reader) node(b fenced) *harness.Node {
	switch {
	case signedCalls.MatchString(b.text):
		return r.nodes["callers"]
	case strings.Contains(b.text, "X-Scope-OrgID") || strings.Contains(b.text, "amphoratool"):
		return r.nodes["tenants"]
	default:
		return r.nodes["plain"]
	}
}

// commands turns a block into a script: pages say 127.0.0.1:8080, and a console shows a prompt.
func (r *reader) commands(b fenced, n *harness.Node) string {
	text := b.text
	if b.lang() == "console" {
		var only []string
		for line := range strings.Lines(text) {
			if c, is := strings.CutPrefix(line, "$ "); is {
				only = append(only, c)
			}
		}
		text = strings.Join(only, "")
	}
	address := strings.TrimPrefix(n.URL(""), "http://")
	return strings.NewReplacer("127.0.0.1:8080", address, "localhost:8080", address).Replace(text)
}

func (r *reader) execute(ctx context.Context, t *testing.T, b fenced) {
	t.Helper()
	n := r.node(b)
	out, err := r.shell(ctx, n, r.commands(b, n))
	if err != nil {
		t.Errorf("%s: %v\n%s\n%s", b, err, b.text, out)
	}
	if strings.Contains(out, `"status":"error"`) {
		t.Errorf("%s: the answer is an error\n%s\n%s", b, b.text, out)
	}
}

func (r *reader) shell(ctx context.Context, n *harness.Node, script string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.WaitDelay = r.dir, time.Second
	cmd.Env = append(os.Environ(), "PATH="+r.bin+":"+os.Getenv("PATH"), "AMPHORA_ADDRESS="+n.URL(""))
	if n == r.nodes["callers"] {
		cmd.Env = append(cmd.Env, r.keys...)
	} else {
		cmd.Env = append(cmd.Env, "AMPHORA_TENANT_ID=team-a")
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// lookAt checks what can be known of a block without executing it.
func (r *reader) lookAt(ctx context.Context, t *testing.T, b fenced) {
	t.Helper()
	for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "  #")
		words := strings.Fields(strings.TrimPrefix(line, "$ "))
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "make":
			if out, err := exec.CommandContext(ctx, "make", "-C", "..", "-n", words[1]).CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %v\n%s", b, line, err, out)
			}
		case "amphora":
			dir := t.TempDir()
			must(t, os.WriteFile(filepath.Join(dir, "amphora.yaml"), []byte("multitenancy_enabled: true\n"), 0o600))
			root, err := filepath.Abs("..")
			must(t, err)
			must(t, os.Symlink(filepath.Join(root, "development"), filepath.Join(dir, "development")))
			cmd := exec.CommandContext(ctx, "bash", "-c", line+" -config.check")
			cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+r.bin+":"+os.Getenv("PATH"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %v\n%s", b, line, err, out)
			}
		}
	}
}
