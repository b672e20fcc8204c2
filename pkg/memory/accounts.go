package memory

// Use names what memory is used for; each has an account.
type Use uint8

// The uses.
const (
	Bodies  Use = iota // push requests: bodies, packed and unpacked, and the work on them
	Frames             // on their way from distributor to ingester, at both ends
	Table              // a distributor's table of known series
	Series             // of the heads of an ingester
	Chunks             // samples of the heads of an ingester that are not on disk yet
	Replay             // reading back the write-ahead log
	Queries            // working sets of queries and of other reads
	Caches             // everything that is held to be quick and can be had again
	numUses
)

// class says when a use is refused.
type class uint8

const (
	caches    class = iota // do without, and shrink
	newSeries              // refused first
	reads                  // refused next
	writes                 // refused last
	owed                   // never refused: what was acknowledged must be held
	numClasses
)

type classRow struct {
	name string
	line float64 // part of the Go runtime's limit; over it the class gets no more
	then string  // what follows when more is in use
}

// classRows is the order in which a process that runs short gives things up. Between two lines there
// is room for what the earlier one still needs until it ends. Above the last one the runtime has
// the rest for what nobody reserved, and to collect garbage without stalling.
func (c class) row() classRow {
	return [numClasses]classRow{
		caches:    {"caches", 0.65, "caches shrink"},
		newSeries: {"series", 0.75, "new series are refused"},
		reads:     {"reads", 0.85, "reads are refused"},
		writes:    {"writes", 0.95, "writes are refused"},
		owed:      {"", 2, ""},
	}[c]
}

type useRow struct {
	name  string // label of metrics, and in errors
	class class
}

func (u Use) row() useRow {
	return [numUses]useRow{
		Bodies:  {"push_bodies", writes},
		Frames:  {"frames", writes},
		Table:   {"series_table", newSeries},
		Series:  {"head_series", newSeries},
		Chunks:  {"head_chunks", owed},
		Replay:  {"replay", owed},
		Queries: {"queries", reads},
		Caches:  {"caches", caches},
	}[u]
}

func (u Use) String() string { return u.row().name }
