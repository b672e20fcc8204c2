package house

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const floorsFile = "tools/house/floors.txt"

// serviceFloor is the floor whose rooms never import one another; above it only the wiring
// room knows them.
const (
	serviceFloor = 3
	wiringRoom   = "app"
)

// commandRooms is what a command under cmd/ may import of pkg/. The tool speaks to servers and
// works on files and buckets itself, which needs the rooms that own their formats.
func commandRooms(p *Package) []string {
	rooms := []string{"app", "config", "telemetry"}
	if p.Rel == toolCommand || strings.HasPrefix(p.Rel, toolCommand+"/") {
		rooms = append(rooms, "block", "bucket", "limits", "ruletest", "sigv4", "tenant", "wal", "wire")
	}
	return rooms
}

// toolCommand is the command that administers.
const toolCommand = "cmd/amphoratool"

// room is one line of floors.txt.
type room struct {
	name   string
	floor  int
	line   int // 1 is the first line of the file
	grants []string
}

// readFloors parses floors.txt. A line is "room: granted rooms", where * is every room above;
// "# floor N: ..." opens a floor.
func readFloors(root string) ([]room, error) {
	data, err := os.ReadFile(filepath.Join(root, floorsFile))
	if err != nil {
		return nil, fmt.Errorf("read the floors: %w", err)
	}
	var rooms []room
	floor, line := 0, 0
	for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
		line++
		text := strings.TrimSpace(sc.Text())
		if n, ok := strings.CutPrefix(text, "# floor "); ok {
			n, _, _ = strings.Cut(n, ":")
			if floor, err = strconv.Atoi(n); err != nil {
				return nil, fmt.Errorf("%s line %d: a floor's heading is \"# floor N: name\"", floorsFile, line)
			}
			continue
		}
		if text == "" || text[0] == '#' {
			continue
		}
		name, grants, ok := strings.Cut(text, ":")
		if !ok {
			return nil, fmt.Errorf("%s line %d: %q is not \"room: granted rooms\"", floorsFile, line, text)
		}
		granted := strings.Fields(grants)
		if slices.Equal(granted, []string{"*"}) {
			granted = nil
			for _, r := range rooms {
				granted = append(granted, r.name)
			}
		}
		rooms = append(rooms, room{name, floor, line, granted})
	}
	return rooms, nil
}

func checkFloors(t *Tree) []Finding {
	rooms, err := readFloors(t.Root)
	if err != nil {
		return []Finding{{Key: floorsFile, What: err.Error(), Remedy: "mend the file"}}
	}
	plan, found := checkPlan(rooms)
	built := map[string]bool{}
	for _, p := range t.Packages {
		r := p.Room()
		if r != "" && !built[r] {
			built[r] = true
			if plan[r] == nil {
				found = append(found, Finding{Key: "pkg/" + r, What: "room " + r + " is not on a floor",
					Remedy: "give it a line in " + floorsFile + ", below the rooms it needs"})
			}
		}
		found = append(found, checkImports(t, p, plan)...)
	}
	for _, r := range rooms {
		if !built[r.name] {
			found = append(found, Finding{Key: floorsFile + ":" + r.name, Line: r.line, What: "room " + r.name + " has a line and no package",
				Remedy: "remove the line, or build the room"})
		}
	}
	return found
}

// checkPlan checks floors.txt itself.
func checkPlan(rooms []room) (map[string]*room, []Finding) {
	plan := map[string]*room{}
	var found []Finding
	for i := range rooms {
		r := &rooms[i]
		bad := func(what, remedy string) {
			found = append(found, Finding{Key: floorsFile + ":" + r.name, Line: r.line, What: what, Remedy: remedy})
		}
		if plan[r.name] != nil {
			bad("room "+r.name+" has two lines", "merge them")
		}
		for _, g := range r.grants {
			switch granted := plan[g]; {
			case granted == nil:
				bad(fmt.Sprintf("%s is granted %s, which is not on a line above it", r.name, g),
					"move what both need into a room below them; a knot of rooms cannot be untied later")
			case granted.floor == serviceFloor && r.floor == serviceFloor:
				bad(fmt.Sprintf("service %s is granted service %s", r.name, g), "let them speak through pkg/wire")
			case granted.floor == serviceFloor && r.name != wiringRoom:
				bad(fmt.Sprintf("%s is granted service %s", r.name, g),
					"declare the interface it needs and let "+wiringRoom+" hand the service in")
			}
		}
		plan[r.name] = r
	}
	return plan, found
}

func checkImports(t *Tree, p *Package, plan map[string]*room) []Finding {
	var found []Finding
	look := func(imports []string, test bool) {
		for _, imp := range imports {
			to, ok := strings.CutPrefix(imp, t.Module+"/")
			if !ok {
				continue
			}
			if what, remedy := judgeImport(p, to, test, plan); what != "" {
				found = append(found, Finding{Key: p.Rel + ":" + to, What: what, Remedy: remedy})
			}
		}
	}
	look(p.Imports, false)
	tests := slices.Concat(p.TestImports, p.XTestImports)
	slices.Sort(tests)
	look(slices.DeleteFunc(slices.Compact(tests), func(s string) bool { return slices.Contains(p.Imports, s) }), true)
	return found
}

// judgeImport says what is wrong with p importing the package at to (relative to the module). A
// test may use every room below its own; no service, in no file, imports a service.
func judgeImport(p *Package, to string, test bool, plan map[string]*room) (what, remedy string) {
	from, target := p.Room(), (&Package{Rel: to}).Room()
	switch {
	case p.Top() == "cmd" && target != "" && !slices.Contains(commandRooms(p), target):
		return p.Rel + " imports room " + target, "a command parses flags and calls " + wiringRoom + "; move the rest there"
	case from == "":
		return "", "" // tools, tests of the whole and set-ups for development may use every room
	case target == "":
		return p.Rel + " imports " + to, "a room stands on rooms of pkg/ only; move what it needs into one"
	case from == target || plan[from] == nil || plan[target] == nil:
		return "", ""
	case plan[from].floor == serviceFloor && plan[target].floor == serviceFloor:
		return "service " + from + " imports service " + target, "let them speak through pkg/wire"
	case test && plan[target].line < plan[from].line:
		return "", ""
	case !slices.Contains(plan[from].grants, target):
		return p.Rel + " imports room " + target + ", which " + floorsFile + " does not grant to " + from,
			"move the code to a room that may, declare a small interface and have " + wiringRoom + " fill it, or grant it"
	}
	return "", ""
}
