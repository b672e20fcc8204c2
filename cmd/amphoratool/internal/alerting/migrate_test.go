package alerting

import (
	"strings"
	"testing"

	"github.com/prometheus/alertmanager/config"
	"github.com/prometheus/alertmanager/featurecontrol"
	"github.com/prometheus/alertmanager/pkg/labels"
)

const classic = `# owned by team a
global:
  smtp_auth_password: secret # stays
route:
  receiver: r
  routes:
    - matchers: [team=a, 'job="b"']
    - matchers:
        - foo=bar\nbaz # classic only
        - '{x=~"a|b",y!=}'
      routes:
        - matchers: ['z="\xf0\x9f\x99\x82"']
inhibit_rules:
  - source_matchers: [severity=critical]
    target_matchers: ["severity=~warning|info"]
receivers:
  - name: r
`

// TestMigratedMatchersMeanTheSameInStrictMode: what was understood before is understood by alertmanagers that
// know UTF-8 only, with the same meaning, and nothing else in the file changes.
func TestMigratedMatchersMeanTheSameInStrictMode(t *testing.T) {
	text := classic
	read := func(features, text string) *config.Config {
		t.Helper()
		if err := initMatchers(features); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		return c
	}
	before := read("", text)
	out, changes, err := migrate([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	after := read(featurecontrol.FeatureUTF8StrictMode, string(out))
	var list func(*config.Route) string
	list = func(r *config.Route) string {
		s := labels.Matchers(r.Matchers).String() + "("
		for _, x := range r.Routes {
			s += list(x)
		}
		return s + ")"
	}
	if a, b := list(before.Route), list(after.Route); a != b {
		t.Errorf("routes meant %s and mean %s", a, b)
	}
	if a, b := labels.Matchers(before.InhibitRules[0].TargetMatchers).String(), labels.Matchers(after.InhibitRules[0].TargetMatchers).String(); a != b {
		t.Errorf("inhibition meant %s and means %s", a, b)
	}
	for _, want := range []string{"# owned by team a", "smtp_auth_password: secret # stays", "# classic only"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is lost:\n%s", want, out)
		}
	}
	if len(changes) == 0 || !strings.Contains(strings.Join(changes, "\n"), `y!=`) {
		t.Errorf("changes %q", changes)
	}
	again, changes, err := migrate(out)
	if err != nil || len(changes) > 0 || string(again) != string(out) {
		t.Errorf("a second time: %q, %v", changes, err)
	}
}

// TestMatchersThatAreWrongAreNamedWithTheirLine: nothing is written then.
func TestMatchersThatAreWrongAreNamedWithTheirLine(t *testing.T) {
	_, _, err := migrate([]byte("route:\n  receiver: r\n  matchers:\n  - a=b\n  - =\n"))
	if err == nil || !strings.Contains(err.Error(), "line 5") {
		t.Errorf("%v", err)
	}
}
