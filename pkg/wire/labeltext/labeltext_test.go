package labeltext

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
)

// lists are labels whose texts have every kind of length.
func lists() []labels.Labels {
	out := []labels.Labels{labels.EmptyLabels(), labels.FromStrings("__name__", "up"), labels.FromStrings("__name__", "up", "job", "a", "x", "é")}
	for _, n := range []int{127, 128, 254, 255, 256, 300, 1 << 16, MaxBytes} {
		out = append(out, labels.FromStrings("__name__", strings.Repeat("v", n), "b", "1"))
	}
	return append(out, labels.FromStrings("__name__", "up", strings.Repeat("n", 260), "v"))
}

func TestLabelsAreMadeAndReadAsTheLibraryDoes(t *testing.T) {
	var b Builder
	for _, want := range lists() {
		b.Reset()
		want.Range(func(l labels.Label) { b.Add([]byte(l.Name), []byte(l.Value)) })
		got := b.Labels()
		if !labels.Equal(got, want) || got.Len() != want.Len() || got.Hash() != want.Hash() || string(got.Bytes(nil)) != string(want.Bytes(nil)) {
			t.Fatalf("%d labels of %d bytes are made in another way", want.Len(), len(Of(want)))
		}
		read := 0
		text := Of(want)
		for at := 0; at < len(text); read++ {
			var name, value string
			if name, value, at = Next(text, at); want.Get(name) != value {
				t.Fatalf("label %q is read in another way", name)
			}
		}
		if read != want.Len() {
			t.Errorf("%d labels read, want %d", read, want.Len())
		}
	}
}

func TestLabelsOnDiskAreCountedTextsBehindTheirLengths(t *testing.T) {
	for _, ls := range lists() {
		want := binary.AppendUvarint([]byte("before"), uint64(ls.Len()))
		ls.Range(func(l labels.Label) {
			for _, s := range []string{l.Name, l.Value} {
				want = append(binary.AppendUvarint(want, uint64(len(s))), s...)
			}
		})
		if got := Append([]byte("before"), ls); string(got) != string(want) {
			t.Errorf("labels of %d bytes are written in another way", len(Of(ls)))
		}
	}
}

func TestLabelsOwnTheirMemory(t *testing.T) {
	var b Builder
	name := []byte("a")
	b.Add(name, name)
	ls := b.Labels()
	name[0] = 'x'
	b.Reset()
	b.Add(name, name)
	if want := labels.FromStrings("a", "a"); !labels.Equal(ls, want) {
		t.Errorf("%v, want %v", ls, want)
	}
}

func TestSeparatedLabelsAreNamesAndValuesWithoutOne(t *testing.T) {
	long := strings.Repeat("v", 255)
	all := append(lists(),
		labels.FromStrings("le", "0.5"), labels.FromStrings("__name__", "b", "le", "0.5"), labels.FromStrings("le", "", "m", "1"),
		labels.FromStrings("__name__", "b", "le", "0.5", "lf", "1", "z", "2"), labels.FromStrings("a", long, "le", "1", "z", "2"),
		labels.FromStrings("a", "1", "le", long, "z", "2"), labels.FromStrings("a", "1", "le", "2", long, "3"),
		labels.FromStrings("a", strings.Repeat("v", 254), "le", strings.Repeat("w", 254), "z", "2"))
	for _, ls := range all {
		want := []byte("before")
		ls.Range(func(l labels.Label) {
			if l.Name != "le" {
				want = append(append(append(append(want, l.Name...), 0xff), l.Value...), 0xff)
			}
		})
		if got := AppendSeparated([]byte("before"), ls, 0xff, "le"); string(got) != string(want) {
			t.Errorf("labels of %d bytes are separated in another way", len(Of(ls)))
		}
	}
}

func TestOnlyWholeTextsAreViewed(t *testing.T) {
	for _, want := range lists() {
		text := []byte(Of(want))
		if got, ok := View(text); !ok || !labels.Equal(got, want) {
			t.Fatalf("%d labels of %d bytes are viewed in another way", want.Len(), len(text))
		}
		for _, n := range []int{1, 2, 3, len(text) / 2, len(text) - 1} {
			if n <= 0 || n >= len(text) {
				continue
			}
			if ls, ok := View(text[:n:n]); ok && ls.Len() >= want.Len() {
				t.Errorf("%d of %d bytes are taken for labels", n, len(text))
			}
		}
	}
	if _, ok := View([]byte{1, 'a'}); ok {
		t.Error("a name without a value is taken for a label")
	}
}
