package nouns

// Table is rows; a table may be as long as it must.
var Table = []string{
	"01",
	"02",
	"03",
	"04",
	"05",
	"06",
	"07",
	"08",
	"09",
	"10",
	"11",
	"12",
	"13",
	"14",
	"15",
	"16",
	"17",
	"18",
	"19",
	"20",
	"21",
	"22",
	"23",
	"24",
	"25",
	"26",
	"27",
	"28",
	"29",
	"30",
	"31",
	"32",
	"33",
	"34",
	"35",
	"36",
	"37",
	"38",
	"39",
	"40",
}

// rows is a table inside a function.
func rows() []int {
	return []int{
		1,
		2,
		3,
		4,
		5,
		6,
	}
}

// shadow changes a local variable that has the name of a package variable.
func shadow() []string {
	Table := rows()
	Table[0] = 7
	return nil
}
