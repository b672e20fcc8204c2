package limits

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/config/strict"
	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// maxFileBytes bounds a runtime file, unpacked: some hundred thousand tenants.
const maxFileBytes = 64 << 20

// change is one limit of one tenant that a file sets.
type change struct {
	row   int // of Table
	value any
}

// runtimeFile is what the runtime files together say.
type runtimeFile struct {
	tenants     map[tenant.ID][]change // sorted by row
	ingester    instanceChange
	distributor instanceChange
	stores      StoreSwitch
}

func newRuntimeFile() *runtimeFile { return &runtimeFile{tenants: map[tenant.ID][]change{}} }

// readBounded reads a file; one whose name ends in .gz is unpacked.
func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	var r io.Reader = f
	if strings.HasSuffix(name, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", name, err)
		}
	}
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if n > maxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, maxFileBytes)
	}
	return b.Bytes(), nil
}

// parseFile adds what data says to out; what an earlier file said about the same limit of the same
// tenant is replaced. Problems are noted with the line.
func parseFile(out *runtimeFile, name string, data []byte, env func(string) string, problems *strict.Problems) {
	doc := strict.Parse(name, data, env, problems)
	sections := map[string]func(*yaml.Node){
		"overrides":        func(n *yaml.Node) { parseOverrides(out, doc, n) },
		ingesterSection:    func(n *yaml.Node) { out.ingester.parse(doc, n, ingesterSection) },
		distributorSection: func(n *yaml.Node) { out.distributor.parse(doc, n, distributorSection) },
		storesSection:      func(n *yaml.Node) { out.stores.parse(doc, n) },
	}
	for _, e := range doc.Entries(doc.Root(), "") {
		if parse, ok := sections[e.Key]; ok {
			parse(e.Value)
			continue
		}
		hint := strict.Suggest(e.Key, []string{"overrides", ingesterSection, distributorSection, storesSection})
		if hint == "" && rowIndex(e.Key) >= 0 {
			hint = "; limits stand below overrides and the tenant"
		}
		problems.Add(doc.Where(e.Line), "unknown key %q%s", e.Key, hint)
	}
}

func parseOverrides(out *runtimeFile, doc *strict.Doc, n *yaml.Node) {
	rows := rowIndexes()
	for _, t := range doc.Entries(n, "overrides") {
		id, err := tenant.Parse(t.Key)
		if err != nil {
			doc.Problems.Add(doc.Where(t.Line), "overrides: %v", err)
			continue
		}
		changes := out.tenants[id]
		for _, e := range doc.Entries(t.Value, "overrides of tenant "+t.Key) {
			path := "overrides of tenant " + t.Key + ": " + e.Key
			i, ok := rows[e.Key]
			if !ok {
				doc.Problems.Add(doc.Where(e.Line), "overrides of tenant %s: unknown limit %q%s", t.Key, e.Key, strict.Suggest(e.Key, rowNames()))
				continue
			}
			if strict.IsNull(e.Value) {
				continue
			}
			if x, ok := Table[i].read(doc, e, path); ok {
				changes = put(changes, change{i, x})
			}
		}
		out.tenants[id] = changes
	}
}

// put sets c in the sorted list.
func put(list []change, c change) []change {
	at, found := slices.BinarySearchFunc(list, c.row, func(x change, row int) int { return x.row - row })
	if found {
		list[at] = c
		return list
	}
	return slices.Insert(list, at, c)
}

func rowIndexes() map[string]int {
	m := make(map[string]int, len(Table))
	for i, r := range Table {
		m[r.Name] = i
	}
	return m
}

func rowIndex(name string) int {
	return slices.IndexFunc(Table, func(r *Row) bool { return r.Name == name })
}

func rowNames() []string {
	out := make([]string, len(Table))
	for i, r := range Table {
		out[i] = r.Name
	}
	return out
}

// equal says whether two files mean the same.
func (f *runtimeFile) equal(g *runtimeFile) bool {
	if len(f.tenants) != len(g.tenants) || f.ingester != g.ingester || f.distributor != g.distributor || f.stores != g.stores {
		return false
	}
	for id, a := range f.tenants {
		b, ok := g.tenants[id]
		if !ok || !slices.EqualFunc(a, b, func(x, y change) bool { return x.row == y.row && same(x.value, y.value) }) {
			return false
		}
	}
	return true
}
