package influx

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/remotewrite"
	"github.com/amphora-metrics/amphora/pkg/remotewrite/remotewritetest"
)

// room gives n bytes.
type room struct{ n int }

var errRoom = errors.New("no memory")

func (r *room) Reserve(n int) error {
	if r.n -= n; r.n < 0 {
		return errRoom
	}
	return nil
}

func (r *room) Grow(buf []byte, n int) ([]byte, error) {
	if err := r.Reserve(n); err != nil {
		return buf, err
	}
	return append(make([]byte, 0, 2*cap(buf)+n), buf...), nil
}

var now = time.UnixMilli(1_700_000_000_000)

// translate returns the samples of lines as "series value time", sorted.
func translate(t *testing.T, tr *Translator, lines string, p Precision) ([]string, Result) {
	t.Helper()
	res, err := tr.Translate([]byte(lines), Options{p, now}, nil, &room{1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	var req writev2.Request
	if err := req.Unmarshal(res.Body); err != nil {
		t.Fatal(err)
	}
	var out []string
	b := labels.NewScratchBuilder(0)
	for _, ts := range req.Timeseries {
		for i := 0; i+2 < len(ts.LabelsRefs); i += 2 {
			if req.Symbols[ts.LabelsRefs[i]] > req.Symbols[ts.LabelsRefs[i+2]] {
				t.Errorf("labels of %q are not sorted", lines)
			}
		}
		ls, err := ts.ToLabels(&b, req.Symbols)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprint(ls, " ", ts.Samples[0].Value, " ", ts.Samples[0].Timestamp))
	}
	slices.Sort(out)
	return out, res
}

func TestLinesBecomeSamples(t *testing.T) {
	const at = "1700000000000"
	tr := NewTranslator()
	for line, want := range map[string][]string{
		`cpu,host=a,region=eu idle=97.5,user=2i 1700000000123456789`: {`{__name__="cpu_idle", host="a", region="eu"} 97.5 1700000000123`, `{__name__="cpu_user", host="a", region="eu"} 2 1700000000123`},
		`cpu idle=1`:                               {`{__name__="cpu_idle"} 1 ` + at},
		`cpu   idle=1   1000000  `:                 {`{__name__="cpu_idle"} 1 1`},
		`m f=1i,g=2u,h=t,i=FALSE,j=-1.5e3,k=.5`:    {`{__name__="m_f"} 1 ` + at, `{__name__="m_g"} 2 ` + at, `{__name__="m_h"} 1 ` + at, `{__name__="m_i"} 0 ` + at, `{__name__="m_j"} -1500 ` + at, `{__name__="m_k"} 0.5 ` + at},
		`m text="a, b=c \" d",v=1 2000000`:         {`{__name__="m_v"} 1 2`},
		"m text=\"two\nlines\",v=1\nn v=2":         {`{__name__="m_v"} 1 ` + at, `{__name__="n_v"} 2 ` + at},
		`m text="only"`:                            {},
		`my\ disk\,one,the\ tag=a\=b\ c used\ %=5`: {`{__name__="my_disk_one_used__", the_tag="a=b c"} 5 ` + at},
		`m,path=C:\dir\ v=1`:                       {}, // the last backslash escapes the space
		`m,path=C:\dir v=1`:                        {`{__name__="m_v", path="C:\\dir"} 1 ` + at},
		`9lives,1st=x v=1`:                         {`{_1st="x", __name__="_9lives_v"} 1 ` + at},
		`temperatur,größe=x höhe=1`:                {`{__name__="temperatur_h_he", gr__e="x"} 1 ` + at},
		`a:b v=1`:                                  {`{__name__="a:b_v"} 1 ` + at},
		`m,Z=1,a=2,_=3 v=1`:                        {`{Z="1", _="3", __name__="m_v", a="2"} 1 ` + at},
		"# a comment\n\n  \r\nm v=1\r\n":           {`{__name__="m_v"} 1 ` + at},
		`m v=1 -1`:                                 {`{__name__="m_v"} 1 -1`},
	} {
		got, res := translate(t, tr, line, 1)
		if !slices.Equal(got, want) && len(got)+len(want) > 0 {
			t.Errorf("%q:\n got %q\nwant %q, %v", line, got, want, res.First)
		}
	}
}

func TestPrecisions(t *testing.T) {
	tr := NewTranslator()
	for text, want := range map[string]string{"": "1", "ns": "1", "us": "1500", "u": "1500", "ms": "1500000", "s": "1500000000", "m": "90000000000", "h": "5400000000000"} {
		p, err := ParsePrecision(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := translate(t, tr, "m v=1 1500000", p); len(got) != 1 || !strings.HasSuffix(got[0], " "+want) {
			t.Errorf("%s: %q, want time %s", text, got, want)
		}
	}
	if _, err := ParsePrecision("week"); errs.KindOf(err) != errs.Invalid {
		t.Errorf("week: %v", err)
	}
	if _, res := translate(t, tr, "m v=1 9223372036854775807", Precision(time.Hour)); res.Refused != 1 {
		t.Error("a time out of range is taken")
	}
}

// TestAMalformedLineCostsOnlyItself: the others are stored, and the first is named by its number.
func TestAMalformedLineCostsOnlyItself(t *testing.T) {
	tr := NewTranslator()
	for _, bad := range []string{
		`m`, `m `, ` ,a=b v=1`, `m,a v=1`, `m,a= v=1`, `m,=b v=1`, `m v`, `m v=`, `m =1`, `m v=1,`, `m v=abc`, `m v=1x`, `m v=1.5i`, `m v=-1u`,
		`m v=NaN`, `m v=Inf`, `m v=0x1p3`, `m v=1e`, `m v=1_000`, `m v="open`, `m v="a"b`, `m v=1 tomorrow`, `m v=1 1 1`, `m v=1 1.5`, `m,a=b,c v=1`, `m v=1e999`,
	} {
		got, res := translate(t, tr, "first v=1\n\"quoted\" v=2\n"+bad+"\nlast v=3\n", 1)
		if res.Refused != 1 || res.Lines != 4 || len(got) != 3 || !strings.HasPrefix(res.First.Error(), "line 3: ") || errs.KindOf(res.First) != errs.Invalid {
			t.Errorf("%q: %q, %d of %d refused: %v", bad, got, res.Refused, res.Lines, res.First)
		}
	}
	if _, res := translate(t, tr, "m text=\"two\nlines\" 1\nbad", 1); !strings.HasPrefix(res.First.Error(), "line 3: ") {
		t.Errorf("behind a text of two lines: %v", res.First)
	}
	_, err := tr.Translate([]byte(strings.Repeat("bad\n", maxRefused+2)), Options{1, now}, nil, &room{1 << 30})
	if errs.KindOf(err) != errs.Invalid || !strings.Contains(err.Error(), "line 1: ") {
		t.Errorf("nothing but malformed lines: %v", err)
	}
	if _, err := tr.Translate([]byte(body(1000)), Options{1, now}, nil, &room{10 << 10}); !errors.Is(err, errRoom) {
		t.Errorf("without memory: %v", err)
	}
}

// body is n lines as Telegraf writes them.
func body(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "cpu,cpu=cpu%d,datacenter=eu-west-1,host=web-%d.example.com,rack=r%d usage_idle=97.%d,usage_system=1.5,usage_user=0.9,uptime_format=\"3 days\",processes=%di 1700000000000000000\n",
			i%8, i/8, i%20, i%100, i)
	}
	return b.String()
}

func FuzzTranslate(f *testing.F) {
	f.Add([]byte(body(3)), int64(1))
	f.Add([]byte("m\\ x,a=\\,b t=\"x\ny\\\"\",v=1i 12\n# c\n9,é=1 v=t -7"), int64(time.Second))
	tr := NewTranslator()
	keys := remotewrite.NewKeys()
	f.Fuzz(func(t *testing.T, lines []byte, precision int64) {
		if !slices.Contains([]int64{1, 1e3, 1e6, 1e9, 60e9, 3600e9}, precision) {
			precision = 1
		}
		res, err := tr.Translate(lines, Options{Precision(precision), now}, nil, &room{1 << 24})
		if err != nil {
			return
		}
		if res.Refused > res.Lines || (res.Refused > 0) != (res.First != nil) {
			t.Errorf("%d of %d lines refused, first: %v", res.Refused, res.Lines, res.First)
		}
		var b remotewrite.Batch
		if err := b.Scan(keys, &remotewrite.Request{Version: remotewrite.V2, Body: res.Body}); err != nil {
			t.Fatalf("the translation is malformed: %v", err)
		}
		if b.Len() != len(b.Times) {
			t.Errorf("%d series with %d samples", b.Len(), len(b.Times))
		}
	})
}

func BenchmarkTranslate(b *testing.B) {
	const lines = 1000
	text := []byte(body(lines))
	tr, buf := NewTranslator(), []byte(nil)
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	start := remotewritetest.CPUTime()
	for b.Loop() {
		res, err := tr.Translate(text, Options{1, now}, buf, &room{1 << 40})
		if err != nil || res.Refused > 0 {
			b.Fatal(res.First, err)
		}
		buf = res.Body
	}
	remotewritetest.ReportPerSample(b, start, 4*lines)
}
