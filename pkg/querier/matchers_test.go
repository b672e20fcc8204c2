package querier

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

// TestMatchersWithoutANameAreDecidedBeforeAnybodyIsAsked: an index fails at them, beside others.
func TestMatchersWithoutANameAreDecidedBeforeAnybodyIsAsked(t *testing.T) {
	m := func(kind labels.MatchType, name, value string) *labels.Matcher {
		return labels.MustNewMatcher(kind, name, value)
	}
	for want, ms := range map[string][]*labels.Matcher{
		``:                                   nil,
		` EQUAL a=x`:                         {m(labels.MatchEqual, "", ""), m(labels.MatchEqual, "a", "x"), m(labels.MatchRegexp, "", "")},
		` EQUAL =`:                           {m(labels.MatchEqual, "", ""), m(labels.MatchRegexp, "", "")},
		` NOT_REGEX __name__=.*`:             {m(labels.MatchEqual, "a", "x"), m(labels.MatchNotEqual, "", "")},
		` NOT_EQUAL =x EQUAL a= REGEX b=y|z`: {m(labels.MatchNotEqual, "", "x"), m(labels.MatchEqual, "a", ""), m(labels.MatchRegexp, "b", "y|z")},
	} {
		got := ""
		for _, x := range toWire(ms) {
			got += " " + x.Type.String() + " " + x.Name + "=" + x.Value
		}
		if got != want {
			t.Errorf("%v became%s, want%s", ms, got, want)
		}
	}
}
