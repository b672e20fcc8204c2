package head

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"sync"
	"unsafe"

	"github.com/prometheus/prometheus/tsdb"
)

// Shared is what the heads of a process have in common, so that a tenant with few series costs
// little. The TSDB is made for one large tenant: however small a head is, it lays out its index for
// 512 label names, which is 75 kB, makes 40 kB of counters, which here nobody reads, and works on
// each batch in buffers for 512 samples of every kind, 115 kB together, of which a pool keeps several
// for each head. It has no options for that, so these parts are replaced in an open head by
// reflection. If a later version names them differently nothing is replaced, and a test says so.
type Shared struct {
	headMetrics, dbMetrics reflect.Value // pointers
	pools                  []smallPool
	blocks                 openBlocks
	meters                 meters // of headMetrics
}

func (s *Shared) openBlocks() *openBlocks {
	if s == nil {
		return new(openBlocks)
	}
	return &s.blocks
}

// NewShared opens an empty head in a directory of its own within dir, for its counters, and removes
// it again.
func NewShared(dir string) (_ *Shared, err error) {
	dir, err = os.MkdirTemp(dir, "shared-*")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	h, err := Open(Options{Dir: dir, meters: "prometheus_tsdb_head_"})
	if err != nil {
		return nil, err
	}
	s := &Shared{headMetrics: part(h.db.Head(), "metrics"), dbMetrics: part(h.db, "metrics"), meters: h.meters}
	for _, name := range []string{"refSeriesPool", "floatsPool", "exemplarsPool", "histogramsPool", "floatHistogramsPool", "metadataPool", "seriesPool"} {
		if p, ok := smallPoolOf(h.db.Head(), name); ok {
			s.pools = append(s.pools, p)
		}
	}
	return s, h.Close()
}

// smallPool is what a pool of buffers makes when it is empty: a buffer that grows with its use.
type smallPool struct {
	name string
	make reflect.Value // func() any
}

// firstSamples is the capacity of a new buffer.
const firstSamples = 16

// smallPoolOf is for the pool in the field name of a head. A pool has a method Get, which tells the
// type of a buffer, and a sync.Pool of pointers to such.
func smallPoolOf(head *tsdb.Head, name string) (smallPool, bool) {
	pool := part(head, name)
	if !pool.IsValid() {
		return smallPool{}, false
	}
	get, ok := pool.Addr().Type().MethodByName("Get")
	if !ok || get.Type.NumOut() != 1 || get.Type.Out(0).Kind() != reflect.Slice {
		return smallPool{}, false
	}
	buffer := get.Type.Out(0)
	return smallPool{name, reflect.ValueOf(func() any {
		p := reflect.New(buffer)
		p.Elem().Set(reflect.MakeSlice(buffer, 0, firstSamples))
		return p.Interface()
	})}, true
}

// apply makes the pool of a head one of small buffers.
func (p smallPool) apply(head *tsdb.Head) {
	items := part(part(head, p.name).Addr().Interface(), "items")
	if !items.IsValid() || items.Type() != reflect.TypeFor[sync.Pool]() {
		return
	}
	items.FieldByName("New").Set(p.make)
}

// slim replaces the parts of a head that was just opened and that nobody uses yet.
func (s *Shared) slim(db *tsdb.DB) {
	if s == nil {
		return
	}
	replace(part(db.Head(), "metrics"), s.headMetrics)
	replace(part(db, "metrics"), s.dbMetrics)
	for _, p := range s.pools {
		p.apply(db.Head())
	}
	postings := part(db.Head(), "postings")
	if !postings.IsValid() || postings.Kind() != reflect.Pointer || postings.IsNil() {
		return
	}
	for _, name := range []string{"m", "lvs"} {
		if m := part(postings.Interface(), name); m.IsValid() && m.Kind() == reflect.Map && m.Len() == 0 {
			m.Set(reflect.MakeMap(m.Type()))
		}
	}
}

// part returns the field name of the struct that of points to, settable although it is not exported;
// the zero Value if there is no such field.
func part(of any, name string) reflect.Value {
	f := reflect.ValueOf(of).Elem().FieldByName(name)
	if !f.IsValid() {
		return f
	}
	return reflect.NewAt(f.Type(), unsafe.Pointer(f.UnsafeAddr())).Elem()
}

// replace makes the pointer in old point where with does.
func replace(old, with reflect.Value) {
	if old.IsValid() && with.IsValid() && old.Kind() == reflect.Pointer && old.Type() == with.Type() {
		old.Set(with)
	}
}
