package limits

import (
	"bytes"
	"strings"
	"testing"
)

const shapes = `
overrides:
  team-a:
    active_series_custom_trackers:
      prod: '{env="prod"}'
      go: go_goroutines{job=~"a|b"}
    active_series_additional_custom_trackers:
      go: '{__name__=~"go_.*"}'
    limits_per_label_set:
      - label_set: {team: shop}
        limits: {max_series: 100}
      - {label_set: {team: shop, env: prod}, limits: {max_series: 10}}
      - {limits: {max_series: 0}}
    cost_attribution_labels_structured:
      - {input: team.name, output: team}
      - {input: env}
  team-b:
    cost_attribution_labels: [team, service.name]
`

func TestStructuredLimitsAreRead(t *testing.T) {
	o, _ := started(t, shapes)
	v := o.For("team-a")
	var got []string
	for _, x := range ActiveSeriesCustomTrackers.Of(v).With(ActiveSeriesAdditionalCustomTrackers.Of(v)).List() {
		got = append(got, x.Name+"="+x.Selector)
	}
	if want := `go={__name__=~"go_.*"} prod={env="prod"}`; strings.Join(got, " ") != want {
		t.Errorf("trackers = %q, want %q", got, want)
	}
	if first := ActiveSeriesCustomTrackers.Of(v).First(1).List(); len(first) != 1 || first[0].Name != "go" {
		t.Errorf("first tracker = %v", first)
	}
	sets := LimitsPerLabelSet.Of(v).List()
	if len(sets) != 3 || sets[1].Labels.String() != `{env="prod", team="shop"}` || sets[1].MaxSeries != 10 || !sets[2].Labels.IsEmpty() {
		t.Errorf("label sets = %+v", sets)
	}
	if a := Attribution(v); len(a) != 2 || a[0] != (AttributionLabel{"team.name", "team"}) || a[1] != (AttributionLabel{"env", "env"}) {
		t.Errorf("attribution = %+v", a)
	}
	if a := Attribution(o.For("team-b")); len(a) != 2 || a[1] != (AttributionLabel{"service.name", "service_name"}) {
		t.Errorf("attribution = %+v", a)
	}
	var page bytes.Buffer
	if err := o.WriteRuntime(&page, "diff"); err != nil {
		t.Fatal(err)
	}
	again, _ := started(t, page.String())
	for i, r := range Table {
		if !same(o.For("team-a").Value(i), again.For("team-a").Value(i)) {
			t.Errorf("%s reads back as %v", r.Name, again.For("team-a").Value(i))
		}
	}
}

func TestTrackersHaveAShortForm(t *testing.T) {
	for text, want := range map[string]string{
		`a:{x="1;2"};b:{y=~"\";.*"} ; `: `{a: '{x="1;2"}', b: '{y=~"\";.*"}'}`,
		`{a: '{x="1"}'}`:                `{a: '{x="1"}'}`,
	} {
		x, err := ActiveSeriesCustomTrackers.Row().parse(text)
		if err != nil || format(x) != want {
			t.Errorf("%s reads as %v, %v; want %s", text, x, err, want)
		}
	}
}

func TestMistakesInStructuredLimitsAreTold(t *testing.T) {
	for _, c := range []struct {
		row        *Row
		text, want string
	}{
		{ActiveSeriesCustomTrackers.Row(), `{a: '{x='}`, "tracker a: selector"},
		{ActiveSeriesCustomTrackers.Row(), `[a]`, "wants names with selectors"},
		{ActiveSeriesCustomTrackers.Row(), `':{x="1"}'`, "has no name"},
		{ActiveSeriesCustomTrackers.Row(), `'a:{x="1"};a:{x="2"}'`, "occurs twice"},
		{LimitsPerLabelSet.Row(), `[{label_set: {a: b}}]`, "limits is missing"},
		{LimitsPerLabelSet.Row(), `[{label_set: {a: b}, limits: {max_serie: 1}}]`, `did you mean "max_series"`},
		{LimitsPerLabelSet.Row(), `[{label_set: {a: b}, limits: {max_series: -1}}]`, "not a number of series"},
		{LimitsPerLabelSet.Row(), `[{limits: {max_series: 1}}, {limits: {max_series: 2}}]`, "occurs twice"},
		{LimitsPerLabelSet.Row(), `[{labels: {}, limits: {max_series: 1}}]`, `unknown key "labels"`},
		{CostAttributionLabelsStructured.Row(), `[{input: tenant}]`, "name that is taken"},
		{CostAttributionLabelsStructured.Row(), `[{input: a, output: 1a}]`, "no name of a label"},
		{CostAttributionLabelsStructured.Row(), `[{input: a}, {input: b, output: a}]`, "two labels called"},
		{CostAttributionLabelsStructured.Row(), `[{output: a}]`, "without a name"},
		{CostAttributionLabels.Row(), `a,b,c,d,e`, "more than 4 labels"},
	} {
		if _, err := c.row.parse(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v, want %q", c.row.Name, c.text, err, c.want)
		}
	}
}
