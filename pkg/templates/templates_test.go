package templates

import (
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

func TestTemplatesThatNeverEndAreRefused(t *testing.T) {
	doubling := `{{define "t0"}}xxxxxxxxxx{{end}}`
	for i := 1; i < 30; i++ {
		from, to := string(rune('a'+i-1)), string(rune('a'+i))
		doubling += `{{define "` + to + `"}}{{template "` + from + `"}}{{template "` + from + `"}}{{template "` + from + `"}}{{end}}`
	}
	for name, tc := range map[string]struct {
		shared, texts []string
		want          string
	}{
		"itself":                  {shared: []string{`{{define "a"}}{{template "a" .}}{{end}}`}, want: `"a" calls itself`},
		"by another file":         {shared: []string{`{{define "a"}}{{if .X}}{{template "b" .}}{{end}}{{end}}`, `{{define "b"}}{{range .}}{{else}}{{template "a" .}}{{end}}{{end}}`}, want: "calls itself"},
		"in a text":               {texts: []string{`{{define "a"}}{{with .}}{{template "a"}}{{end}}{{end}}{{template "a"}}`}, want: `"a" calls itself`},
		"of an annotation":        {texts: []string{`{{define "a"}}{{template "a"}}{{end}}{{$value}}{{template "a"}}`}, want: `"a" calls itself`},
		"a text changes a file's": {shared: []string{`{{define "a"}}{{template "b"}}{{end}}{{define "b"}}{{end}}`}, texts: []string{`{{define "b"}}{{template "a"}}{{end}}{{template "b"}}`}, want: "calls itself"},
		"tripling":                {shared: []string{doubling}, want: "may become longer"},
		"ranges in each other":    {texts: []string{strings.Repeat("{{range .Alerts}}", 4) + "x" + strings.Repeat("{{end}}", 4)}, want: "may become longer"},
	} {
		err := Check(tc.shared, tc.texts)
		if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want Invalid with %q", name, err, tc.want)
		}
	}
}

func TestTemplatesOfUseAreTaken(t *testing.T) {
	shared := []string{`{{define "list"}}{{range .}}Labels:
{{range .Labels.SortedPairs}} - {{ .Name }} = {{ .Value | toUpper }}
{{end}}Annotations:
{{range .Annotations.SortedPairs}} - {{ .Name }} = {{ .Value }}
{{end}}Source: {{ .GeneratorURL }}
{{end}}{{end}}{{define "title"}}[{{ .Status }}] {{ template "__subject" . }}{{end}}`}
	texts := []string{
		`{{ template "title" . }}`, `{{ if gt (len .Alerts.Firing) 0 }}{{ template "list" .Alerts.Firing }}{{ else }}{{ template "list" .Alerts.Resolved }}{{ end }}`,
		`{{ template "slack.default.text" . }}`, `{{ $labels.instance }} is {{ humanize $value }} of {{ $externalLabels.cluster }}`,
		`{{ with query "up" }}{{ range . }}{{ .Labels.job }}{{ end }}{{ end }}`, `not {{ parsed`, "plain",
	}
	if err := Check(shared, texts); err != nil {
		t.Error(err)
	}
}
