package config

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// server and ring stand for the Configs of two rooms.
type server struct {
	Target  string
	Members []string
	Ring    ring
	Timeout time.Duration
	Rate    float64
	Check   bool
	Key     Secret
	Token   string
	Level   string
}

type ring struct{ Replicas int }

func (r *ring) Declare(s *Set) {
	s.Int(&r.Replicas, "replication-factor", 3, "Copies of a series.").Named("ring.rf")
}

func (r *ring) Validate() error {
	if r.Replicas < 1 {
		return errors.Join(Wrong("replication-factor", "must be at least 1, is %d", r.Replicas), errors.New("no ring without replicas"))
	}
	return nil
}

func (c *server) Declare(s *Set) {
	s.String(&c.Target, "target", "all", "What to run: a | b.")
	s.Strings(&c.Members, "join-members", []string{"a:1", "b:2"}, "Peers.")
	s.Mount("ring", &c.Ring)
	s.Duration(&c.Timeout, "push-timeout", 2*time.Second, "Deadline.").Expert()
	s.Float(&c.Rate, "limits.rate", 10_000, "Samples a second.")
	s.Bool(&c.Check, "check", false, "Check a lot.")
	s.Secret(&c.Key, "auth.secret-key", "Key of the store.")
	s.String(&c.Token, "auth.token", "", "Token.").Masked()
	s.String(&c.Level, "log.level", "info", "Level.").Named("log.level").OneOf("info", "debug")
}

func newServer() (*server, *Set) {
	c, s := new(server), NewSet()
	s.Mount("server", c)
	return c, s
}

func noEnv(string) string { return "" }

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "amphora.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; run with -update and look at the change. got:\n%s", path, got)
	}
}

func TestFlagBeatsEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	c, s := newServer()
	name := file(t, "server:\n  target: file\n  push_timeout: 3s\n  ring:\n    replication_factor: 5\n")
	env := map[string]string{"AMPHORA_SERVER_TARGET": "env", "AMPHORA_RING_RF": "7", "AMPHORA_CONFIG_FILE": name, "AMPHORA_VERSION": "1.2"}
	req, err := Load(s, []string{"-ring.rf=9", "--server.check"}, func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if c.Ring.Replicas != 9 || c.Target != "env" || c.Timeout != 3*time.Second || c.Rate != 10_000 || !c.Check || req.File != name {
		t.Fatalf("got %+v, %+v", c, req)
	}
	sources := map[string]string{}
	for _, f := range s.Fields() {
		sources[f.Path] = f.Source
	}
	if sources["server.ring.replication_factor"] != "flag -ring.rf" || sources["server.target"] != "environment AMPHORA_SERVER_TARGET" ||
		sources["server.push_timeout"] != name+":3" || sources["server.limits.rate"] != "" {
		t.Errorf("sources = %v", sources)
	}
}

func TestListsAreSequencesOrCommasAndFlagsRepeat(t *testing.T) {
	for _, text := range []string{"[x, 'y,z']", "\n    - x\n    - y,z\n", "x, y,z"} {
		c, s := newServer()
		if _, err := Load(s, []string{"-config.file", file(t, "server:\n  join_members: "+text)}, noEnv); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(c.Members, ";"); got != "x;y,z" && got != "x;y;z" {
			t.Errorf("%q: members = %q", text, got)
		}
	}
	c, s := newServer()
	if _, err := Load(s, []string{"-server.join-members=a", "-server.join-members", "b,c"}, noEnv); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Members, ";"); got != "a;b;c" {
		t.Errorf("members = %q, want a;b;c", got)
	}
}

func TestEveryMistakeIsReportedWithItsPlaceAndTheNearestName(t *testing.T) {
	_, s := newServer()
	name := file(t, `server:
  targit: all
  push_timeout: soon
  replication_factor: 3
  ring: 5
  limits: {rate: [1], rate: 2}
  auth:
    secret_key: "********"
  log:
    level: loud
serwer: {}
`)
	_, err := Load(s, []string{"-config.file=" + name, "-server.chek", "-ring.rf", "x", "false", "-server.target"}, func(k string) string {
		if k == "AMPHORA_SERVER_LIMITS_RATE" {
			return "NaN"
		}
		return ""
	})
	if errs.KindOf(err) != errs.Invalid {
		t.Fatalf("kind %v of %v", errs.KindOf(err), err)
	}
	golden(t, "mistakes.txt", []byte(strings.ReplaceAll(err.Error(), name, "amphora.yaml")+"\n"))
}

func TestReportsAreBounded(t *testing.T) {
	_, s := newServer()
	_, err := Load(s, []string{"-config.file", file(t, strings.Repeat("? [x]\n: 1\n", 500))}, noEnv)
	if err == nil || strings.Count(err.Error(), "\n") > 25 || !strings.Contains(err.Error(), "500 problems") {
		t.Fatalf("err = %v", err)
	}
}

func TestPartsCheckThemselvesAndTheMessageNamesTheSource(t *testing.T) {
	_, s := newServer()
	_, err := Load(s, []string{"-ring.rf=0"}, noEnv)
	const want = "2 problems:\n  server.ring.replication_factor (flag -ring.rf): must be at least 1, is 0\n  server.ring: no ring without replicas"
	if err == nil || err.Error() != want {
		t.Fatalf("got:\n%v\nwant:\n%s", err, want)
	}
}

func TestVariablesAreExpandedInValuesOnly(t *testing.T) {
	env := func(k string) string { return map[string]string{"PW": "a #b: [c", "RF": "4"}[k] }
	text := "server:\n  target: $${PW} ${1} ${NONE:x y}\n  auth: {secret_key: \"${PW}\"}\n  ring:\n    replication_factor: ${RF}\n"
	c, s := newServer()
	if _, err := Load(s, []string{"-config.file", file(t, text), "-config.expand-env=true"}, env); err != nil {
		t.Fatal(err)
	}
	if c.Key.Reveal() != "a #b: [c" || c.Ring.Replicas != 4 || c.Target != "${PW} ${1} x y" {
		t.Errorf("got %q %d %q", c.Key.Reveal(), c.Ring.Replicas, c.Target)
	}
	name := file(t, "server:\n  target: ${NONE}")
	if _, err := Load(s, []string{"-config.file", name, "-config.expand-env"}, env); err == nil ||
		!strings.Contains(err.Error(), name+":2: server.target: the environment variable NONE is empty or not set") {
		t.Errorf("err = %v", err)
	}
	if _, err := Load(s, []string{"-config.file", name}, env); err != nil || c.Target != "${NONE}" {
		t.Errorf("without -config.expand-env: target %q, err %v", c.Target, err)
	}
}

func TestSpecialFlags(t *testing.T) {
	_, s := newServer()
	broken := "-config.file=/does/not/exist"
	if req, err := Load(s, []string{"-h", broken}, noEnv); err != nil || !req.Help {
		t.Errorf("-h: %+v, %v", req, err)
	}
	if req, err := Load(s, []string{"-version", "-nonsense"}, noEnv); err != nil || !req.Version {
		t.Errorf("-version: %+v, %v", req, err)
	}
	if req, err := Load(s, []string{"-print.config", "-config.check"}, noEnv); err != nil || req.Print != ModeEffective || !req.Check {
		t.Errorf("-print.config: %+v, %v", req, err)
	}
	if req, err := Load(s, []string{"-print.config=diff"}, noEnv); err != nil || req.Print != ModeDiff {
		t.Errorf("-print.config=diff: %+v, %v", req, err)
	}
	if _, err := Load(s, []string{"-print.config=all", broken}, noEnv); err == nil || !strings.Contains(err.Error(), "no such file") ||
		!strings.Contains(err.Error(), `"all" is not one of`) {
		t.Errorf("err = %v", err)
	}
}

func TestIntegersOfGeneratorsAreRead(t *testing.T) {
	for text, want := range map[string]int{"1e+06": 1_000_000, "10_000": 10_000, "0x10": 16, "010": 10, "-5": -5} {
		if got, err := ParseInt(text); err != nil || got != want {
			t.Errorf("ParseInt(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"1.5", "1e300", "", "five", "9007199254740993e3"} {
		if got, err := ParseInt(text); err == nil {
			t.Errorf("ParseInt(%q) = %d, want an error", text, got)
		}
	}
}

func TestNamesDeclaredTwiceAreABug(t *testing.T) {
	for _, second := range []string{"target", "target.more"} {
		s := NewSet()
		var a, b string
		s.String(&a, "target", "", "")
		s.String(&b, second, "", "")
		func() {
			defer func() {
				if r := recover(); r == nil || !strings.HasPrefix(r.(string), "BUG: ") {
					t.Errorf("%s: recovered %v", second, r)
				}
			}()
			_, _ = Load(s, nil, noEnv)
		}()
	}
}
