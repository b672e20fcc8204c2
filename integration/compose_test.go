package integration

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/app"
	"github.com/amphora-metrics/amphora/pkg/config"
)

// composed is what a compose file says.
type composed struct {
	Services map[string]struct {
		Image       string
		Command     []string
		Environment map[string]string
		Ports       []string
		Volumes     []string
		Hostname    string
		DependsOn   []string `yaml:"depends_on"`
		Networks    map[string]struct{ Aliases []string }
	}
	Volumes map[string]any
}

// hosts are the names that processes of a project find each other by.
func (p *composed) hosts() []string {
	var out []string
	for name, s := range p.Services {
		out = append(out, name, s.Hostname)
		for _, n := range s.Networks {
			out = append(out, n.Aliases...)
		}
	}
	return out
}

// addressed finds the host and port in what a flag or variable of ours says.
var addressed = regexp.MustCompile(`^(?:[a-z-]+=)?(?:https?://)?([a-z][a-z0-9-]*):([0-9]+)(?:/.*)?$`)

// check says where a project names hosts, ports, files and volumes that it does not have.
func (p *composed) check(t *testing.T, file string) {
	t.Helper()
	hosts := p.hosts()
	for name, s := range p.Services {
		wrong := func(what string) { t.Errorf("%s, %s: there is no %s", filepath.Base(file), name, what) }
		values := slices.Collect(maps.Values(s.Environment))
		for _, c := range s.Command {
			_, value, _ := strings.Cut(c, "=")
			values = append(values, value)
		}
		for _, v := range values {
			m := addressed.FindStringSubmatch(v)
			if m == nil {
				continue
			}
			if !slices.Contains(hosts, m[1]) {
				wrong("host " + m[1])
			}
			if ports := []string{"8080", "9095", "7946", "9000"}; !slices.Contains(ports, m[2]) {
				wrong("port " + m[2])
			}
		}
		for _, d := range s.DependsOn {
			if _, ok := p.Services[d]; !ok {
				wrong("service " + d)
			}
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, named := p.Volumes[from]; !named && !exists(filepath.Join(filepath.Dir(file), from)) {
				wrong("file or volume " + from)
			}
		}
		for _, port := range s.Ports {
			if inner := port[strings.LastIndexByte(port, ':')+1:]; strings.HasPrefix(s.Image, "amphora:") && inner != "8080" {
				wrong("port " + inner)
			}
		}
	}
}

// settingsByVariable are the variables of the environment that settings have: others are overlooked by the binary.
func settingsByVariable() map[string]bool {
	set := config.NewSet()
	app.Declare(set)
	out := map[string]bool{}
	for _, f := range set.Fields() {
		out[f.Env()] = true
	}
	return out
}

// TestComposeFilesTellTheBinaryWhatItTakes checks the configuration of every service that a compose file
// starts, without starting it.
func TestComposeFilesTellTheBinaryWhatItTakes(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs the binary; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	path := binary(ctx, t)
	files, err := filepath.Glob("../development/compose/*s.yaml")
	must(t, err)
	files = append(files, "../development/compose/single.yaml")
	if len(files) != 3 {
		t.Fatalf("%q", files)
	}
	variables := settingsByVariable()
	for _, name := range files {
		data, err := os.ReadFile(name)
		must(t, err)
		var project composed
		must(t, yaml.Unmarshal(data, &project))
		project.check(t, name)
		checked := 0
		for _, service := range slices.Sorted(maps.Keys(project.Services)) {
			s := project.Services[service]
			if !strings.HasPrefix(s.Image, "amphora:") {
				continue
			}
			checked++
			cmd := exec.CommandContext(ctx, path, append(s.Command, "-config.check")...)
			cmd.Dir = t.TempDir()
			for key, value := range s.Environment {
				if !variables[key] {
					t.Errorf("%s, %s: no setting has the variable %s", filepath.Base(name), service, key)
				}
				cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%s", key, value))
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s, %s: %v\n%s", filepath.Base(name), service, err, out)
			}
		}
		if checked == 0 {
			t.Errorf("%s starts nothing of ours", name)
		}
	}
}
