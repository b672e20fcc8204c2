package limits

import (
	"fmt"
	"math"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// Defaults is the limits of tenants without overrides, as set in the main configuration under
// "limits": a preset and, winning over it, any limit of the table. Mount it as "limits".
type Defaults struct {
	Preset string

	cells  []any // a *T for each row of Table
	fields []*config.Field
}

// Declare names each limit of the table as a setting.
func (d *Defaults) Declare(s *config.Set) {
	s.String(&d.Preset, "preset", presets()[0].name,
		"Family of defaults: "+presetDocs()+" A limit set by itself wins.").
		OneOf(presetNames()...)
	d.cells, d.fields = make([]any, len(Table)), make([]*config.Field, len(Table))
	for i, r := range Table {
		f := d.declare(s, i, r)
		f.Named(r.Flag).Expert()
		if len(r.Allowed) > 0 {
			f.OneOf(r.Allowed...)
		}
		set := f.Set
		f.Set = func(v string) error {
			if _, err := r.parse(v); err != nil {
				return err
			}
			return set(v)
		}
		f.Value = func() string { return format(d.value(i)) }
		d.fields[i] = f
	}
}

func (d *Defaults) declare(s *config.Set, i int, r *Row) *config.Field {
	doc := r.Doc
	if r.Unit != "" {
		doc += " Unit: " + r.Unit + "."
	}
	switch def := r.Default.(type) {
	case int:
		p := new(int)
		d.cells[i] = p
		return s.Int(p, r.Name, def, doc)
	case float64:
		p := new(float64)
		d.cells[i] = p
		return s.Float(p, r.Name, def, doc)
	case bool:
		p := new(bool)
		d.cells[i] = p
		return s.Bool(p, r.Name, def, doc)
	case string:
		p := new(string)
		d.cells[i] = p
		return s.String(p, r.Name, def, doc)
	case time.Duration:
		p := new(time.Duration)
		d.cells[i] = p
		return s.Duration(p, r.Name, def, doc)
	case []string:
		p := new([]string)
		d.cells[i] = p
		return s.Strings(p, r.Name, def, doc)
	case Structured:
		c := &cell{defaults: d, row: i, value: def}
		d.cells[i] = c
		return s.Document(c, r.Name, doc)
	}
	panic(fmt.Sprintf("BUG: limit %s has the unsupported type %T", r.Name, r.Default))
}

// value returns limit i: as set, else by the preset, else the table's.
func (d *Defaults) value(i int) any {
	if d.fields != nil && d.fields[i] != nil && d.fields[i].Source != "" {
		switch p := d.cells[i].(type) {
		case *int:
			return *p
		case *float64:
			return *p
		case *bool:
			return *p
		case *string:
			return *p
		case *time.Duration:
			return *p
		case *[]string:
			return *p
		case *cell:
			return p.value
		}
	}
	for _, p := range presets() {
		if p.name != d.Preset {
			continue
		}
		if x, ok := p.values[Table[i].Name]; ok {
			return x
		}
	}
	return Table[i].Default
}

// cell holds the default of a structured limit.
type cell struct {
	defaults *Defaults
	row      int
	value    any
}

// Read is part of config.Document.
func (c *cell) Read(doc *strict.Doc, n *yaml.Node, path string) bool {
	x, ok := Table[c.row].shape(doc, n, path)
	if ok {
		c.value = x
	}
	return ok
}

// Node is part of config.Document.
func (c *cell) Node() *yaml.Node { return node(c.defaults.value(c.row)) }

// view returns the defaults as a View with a value in every row.
func (d *Defaults) view(epoch uint64) View {
	v := View{over: make([]any, len(Table)), epoch: epoch}
	for i := range Table {
		v.over[i] = d.value(i)
	}
	return v
}

// preset is a family of defaults.
type preset struct {
	name, doc string
	values    map[string]any
}

// presets returns the families, the default one first.
func presets() []preset {
	return []preset{
		{"default", "the defaults of the table", nil},
		{"amp-2021", "the quotas of Amazon Managed Service for Prometheus as documented in 2021", values(
			set(MaxGlobalSeriesPerUser, 1_000_000),
			set(MaxGlobalSeriesPerMetric, 200_000),
			set(IngestionRate, 70_000),
			set(IngestionBurstSize, 1_000_000),
			set(MaxLabelNamesPerSeries, 70),
			set(MaxLabelNameLength, 1024),
			set(MaxLabelValueLength, 2048),
			set(MaxMetadataLength, 1024),
			set(MaxGlobalMetadataPerUser, 20_000),
			set(MaxGlobalMetadataPerMetric, 10),
			// Samples older than an hour are refused; the hour is the window plus this.
			set(PastGracePeriod, time.Hour-OutOfOrderTimeWindow.Row().Default.(time.Duration)),
			set(MaxFetchedChunkBytesPerQuery, 750<<20),
			set(MaxTotalQueryLength, 32*24*time.Hour),
			set(AcceptHASamples, true),
			set(AlertmanagerMaxConfigSize, 1<<20),
			set(AlertmanagerMaxTemplates, 100),
			set(AlertmanagerMaxRoutes, 100),
			set(AlertmanagerMaxInhibitRules, 100),
			set(AlertmanagerMaxGroups, 1000),
			set(AlertmanagerMaxRepeatInterval, 5*24*time.Hour),
		)},
		{"unlimited", "nothing is refused for its amount", values(
			set(RequestRate, 0),
			set(IngestionRate, 0),
			set(IngestionBurstSize, math.MaxInt32),
			set(MaxLabelNameLength, math.MaxInt32),
			set(MaxLabelValueLength, math.MaxInt32),
			set(MaxLabelNamesPerSeries, math.MaxInt32),
			set(MaxLabelNamesPerInfoSeries, math.MaxInt32),
			set(MaxMetadataLength, math.MaxInt32),
			set(MaxNativeHistogramBuckets, 0),
			set(HAMaxClusters, 0),
			set(MaxGlobalSeriesPerUser, 0),
			set(MaxActiveSeriesPerUser, 0),
			set(MaxGlobalSeriesPerMetric, 0),
			set(MaxGlobalMetadataPerUser, 0),
			set(MaxGlobalMetadataPerMetric, 0),
			set(MaxFetchedSeriesPerQuery, 0),
			set(MaxFetchedChunksPerQuery, 0),
			set(MaxFetchedChunkBytesPerQuery, 0),
			set(MaxQueryLookback, 0),
			set(MaxPartialQueryLength, 0),
			set(MaxTotalQueryLength, 0),
			set(MaxQueryExpressionSize, 0),
		)},
	}
}

// pair is one value of a preset.
type pair struct {
	name  string
	value any
}

func set[T Value](k Key[T], x T) pair { return pair{k.String(), x} }

func values(pairs ...pair) map[string]any {
	m := make(map[string]any, len(pairs))
	for _, p := range pairs {
		m[p.name] = p.value
	}
	return m
}

func presetNames() []string {
	var out []string
	for _, p := range presets() {
		out = append(out, p.name)
	}
	return out
}

func presetDocs() string {
	var out []string
	for _, p := range presets() {
		out = append(out, p.name+" ("+p.doc+")")
	}
	return strings.Join(out, ", ") + "."
}
