// Package otlp converts OpenTelemetry metrics to remote write 2.0, so that they take the one write
// path there is. It parses the protocol in place and produces the names and shapes that Prometheus
// gives OpenTelemetry metrics, as the tenant's limits choose.
//
// Prometheus's own translation is the reference: a test compares the two. It is not used directly
// because it materializes every point several times, drops all points of a metric after a bad one,
// does not count what it refuses, and produces an unbounded number of samples for a resource whose
// points lie far apart.
package otlp

import (
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
)

// Settings is how a tenant's metrics are translated.
type Settings struct {
	Suffixes            bool     // add unit and type to metric names
	UTF8                bool     // leave names as they are
	Promote             []string // resource attributes that become labels of every series
	KeepIdentifying     bool     // leave service.* on target_info
	CustomBuckets       bool     // explicit histograms become native ones
	Scope               bool     // the scope becomes labels
	Deltas              bool     // store points of delta temporality as they are
	UnderscoreKeys      bool     // _a becomes key_a
	PreserveUnderscores bool     // a__b stays
	StartTimes          bool     // pass on when a series started
	Exemplars           bool     // pass on exemplars

	// Streams adds up points of delta temporality, unless Deltas is set. nil: they are refused.
	Streams *Streams
	Tenant  string // whose the streams are
	// Place says where which of them are added up. nil: here.
	Place Place
	// Handed says that another process made the request out of the points that belong here, and writes what
	// it says of its targets.
	Handed bool
}

// SettingsOf reads the settings off a tenant's limits.
func SettingsOf(v limits.View) Settings {
	s := Settings{
		Suffixes:            limits.OTelMetricSuffixes.Of(v),
		UTF8:                limits.NameValidationScheme.Of(v) == "utf8",
		Promote:             limits.PromoteOTelResourceAttributes.Of(v),
		KeepIdentifying:     limits.OTelKeepIdentifyingResourceAttributes.Of(v),
		CustomBuckets:       limits.OTelConvertHistogramsToNHCB.Of(v),
		Scope:               limits.OTelPromoteScopeMetadata.Of(v),
		Deltas:              limits.OTelNativeDeltaIngestion.Of(v),
		UnderscoreKeys:      limits.OTelLabelNameUnderscoreSanitization.Of(v),
		PreserveUnderscores: limits.OTelLabelNamePreserveMultipleUnderscores.Of(v),
		StartTimes:          limits.OTelCreatedTimestampZeroIngestion.Of(v),
		Exemplars:           limits.MaxGlobalExemplarsPerUser.Of(v) > 0,
	}
	switch limits.OTelTranslationStrategy.Of(v) {
	case "UnderscoreEscapingWithSuffixes":
		s.UTF8, s.Suffixes = false, true
	case "UnderscoreEscapingWithoutSuffixes":
		s.UTF8, s.Suffixes = false, false
	case "NoUTF8EscapingWithSuffixes":
		s.UTF8, s.Suffixes = true, true
	case "NoTranslation":
		s.UTF8, s.Suffixes = true, false
	}
	return s
}

// Result is what a request was made into.
type Result struct {
	// Body is a remote write 2.0 body in memory of the Room, the caller's also if there is an error.
	Body []byte
	// Points is how many data points the request has; Refused of them are not in Body.
	Points, Refused int
	// Samples is how many samples Body has: a histogram may be many.
	Samples int
	// First says why the first of these was refused.
	First error
	// Parts are requests of the points that peers add up, by peer; nil for those who get none. PartPoints is
	// how many points they have together.
	Parts      [][]byte
	PartPoints int
	// Unplaced is how many points nobody may add up for now. They are neither refused nor in Body.
	Unplaced int
}

// Translator translates one request after another, and then allocates little.
type Translator struct {
	enc remotewrite.Encoder
	set *Settings
	res Result

	names      map[metricKey]metricName // across requests
	labelNames map[string]labelName     // of attributes of this request

	resource  resource
	targets   targets
	constants []label // of the scope being read, sorted by name
	attrs     []label // of the point being read
	merged    []label // attrs and constants
	before    []before
	refs      []uint32
	nameAt    int      // in refs, of the value of the metric's name
	extra     []uint32 // refs with one label more
	extraAt   int      // in extra, of the value of that label

	exemplars []rawExemplar // of the point being read
	hist      histogramMemory
	parts     parts
}

// NewTranslator returns a Translator.
func NewTranslator() *Translator {
	return &Translator{names: map[metricKey]metricName{}, labelNames: map[string]labelName{}}
}

// Translate makes the body of an ExportMetricsServiceRequest in the protobuf encoding into one of
// remote write 2.0, in buf or what room gives instead. body must not change meanwhile. Points that
// cannot be stored are refused one by one. Errors: Invalid (malformed), BodyTooLarge, those of room.
func (t *Translator) Translate(body []byte, s *Settings, buf []byte, room remotewrite.Room) (Result, error) {
	t.set, t.parts.room = s, room
	t.enc.Begin(buf, room)
	err := t.request(body)
	if err == nil {
		err = t.parts.failed
	}
	res := t.res
	res.Parts = t.parts.take()
	res.Samples = t.enc.Samples()
	var encErr error
	res.Body, encErr = t.enc.End()
	if err == nil {
		err = encErr
	}
	t.reset()
	return res, err
}

// maxKeptNames bounds what is remembered of names, of metrics across requests and of attributes
// within one.
const maxKeptNames = 4096

func (t *Translator) reset() {
	t.set, t.res = nil, Result{}
	if len(t.names) > maxKeptNames {
		t.names = map[metricKey]metricName{}
	}
	if len(t.labelNames) > maxKeptNames {
		t.labelNames = map[string]labelName{}
	}
	clear(t.labelNames)
	t.resource = resource{attrs: forget(t.resource.attrs)}
	t.constants, t.attrs, t.merged = forget(t.constants), forget(t.attrs), forget(t.merged)
	t.before = forget(t.before)
	t.refs, t.extra, t.exemplars = forget(t.refs), forget(t.extra), forget(t.exemplars)
	t.targets.reset()
	t.hist.reset()
}

// forget empties s with what it refers to, and keeps its memory unless it is unusually much.
func forget[T any](s []T) []T {
	if cap(s) > maxKeptNames {
		return nil
	}
	clear(s[:cap(s)])
	return s[:0]
}

// refuse counts n points as not stored; err says why and is asked only for the first.
func (t *Translator) refuse(n int, err func() error) {
	if n == 0 {
		return
	}
	if t.res.Refused += n; t.res.First == nil {
		t.res.First = errs.Wrap(errs.Invalid, err())
	}
}
