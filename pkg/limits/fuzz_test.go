package limits

import (
	"bytes"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
)

// FuzzRuntimeFile checks that no file can break the reader, that what is accepted is within the
// rules of the table, and that the printed page means the same.
func FuzzRuntimeFile(f *testing.F) {
	for _, seed := range []string{plain, "overrides: {a: {ingestion_rate: 5}}", "overrides: &a {b: *a}", "overrides: {a: &b {<<: *b}}",
		"ingester_limits: {max_series: 5}\ndistributor_limits: {max_series: 5}", "overrides: [a]", "overrides: {a: {max_query_lookback: 1d2h}}"} {
		f.Add([]byte(seed))
	}
	read := func(data []byte) (*runtimeFile, error) {
		file, problems := newRuntimeFile(), new(strict.Problems)
		parseFile(file, "f.yaml", data, func(string) string { return "1" }, problems)
		return file, problems.Err()
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := read(data)
		if err != nil {
			return
		}
		for id, changes := range file.tenants {
			for _, c := range changes {
				if err := Table[c.row].check(c.value); err != nil {
					t.Fatalf("%s: %v", id, err)
				}
			}
		}
		o := NewOverrides(&Defaults{}, RuntimeConfig{}, Deps{})
		o.put(file)
		var page bytes.Buffer
		if err := o.WriteRuntime(&page, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := read(page.Bytes()); err != nil {
			t.Fatalf("%v in:\n%s", err, page.String())
		}
	})
}
