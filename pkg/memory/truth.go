package memory

import (
	"runtime"
	"runtime/metrics"
)

// usage is what the Go runtime says about memory.
type usage struct {
	live     int64  // bytes of objects that the last collection found alive
	overhead int64  // bytes beside the heap: stacks, the runtime's own
	cycles   uint64 // collections so far
}

// lookAtRuntime returns a function that reads the usage, for one goroutine at a time.
func lookAtRuntime() func() usage {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
	}
	return func() usage {
		metrics.Read(samples)
		of := func(i int) int64 { return int64(samples[i].Value.Uint64()) }
		return usage{live: of(0), cycles: samples[1].Value.Uint64(), overhead: of(2) - of(3) - of(4) - of(5) - of(6)}
	}
}

func collectGarbage() { runtime.GC() }

// onCollection calls f soon after each garbage collection until it returns false.
func onCollection(f func() bool) {
	// An object that nothing holds is found dead by each collection. It has a pointer so that the
	// runtime does not allocate it together with others.
	type sentinel struct{ _ *sentinel }
	runtime.AddCleanup(new(sentinel), func(f func() bool) {
		if f() {
			onCollection(f)
		}
	}, f)
}
