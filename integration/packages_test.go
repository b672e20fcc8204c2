package integration

import (
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

// read returns a file of the repository.
func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", name))
	must(t, err)
	return string(data)
}

// TestThePackageHoldsWhatItsServiceStarts holds the list of the package, the unit and the configuration against each
// other and against the binary.
func TestThePackageHoldsWhatItsServiceStarts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs the binary; not in -short")
	}
	var list struct {
		Contents []struct {
			Src, Dst string
			Info     struct{ Mode int } `yaml:"file_info"`
		}
		Scripts map[string]string
		RPM     struct{ BuildHost string }
	}
	must(t, yaml.Unmarshal([]byte(read(t, "operations/packages/nfpm.yaml")), &list))
	installed := map[string]string{}
	for _, c := range list.Contents {
		installed[c.Dst] = c.Src
		if c.Info.Mode == 0 {
			t.Errorf("%s has the mode that it has on the machine that packs it", c.Dst)
		}
		built := strings.HasPrefix(c.Src, "bin/linux-${ARCH}/amphora") // make cross, and make sbom
		if !built && !exists(filepath.Join("..", c.Src)) {
			t.Errorf("the package is to hold %s, which does not exist", c.Src)
		}
	}
	if list.RPM.BuildHost == "" || !strings.Contains(read(t, "Makefile"), "SOURCE_DATE_EPOCH=") {
		t.Error("packages of the same commit differ by the machine or the time at which they are made")
	}
	for _, script := range list.Scripts {
		if out, err := exec.CommandContext(t.Context(), "sh", "-n", filepath.Join("..", script)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}

	unit := read(t, "operations/systemd/amphora.service")
	starts := regexp.MustCompile(`(?m)^ExecStart(?:Pre)?=(.*)$`).FindAllStringSubmatch(unit, -1)
	if len(starts) != 2 {
		t.Fatalf("the unit starts %q", starts)
	}
	ctx := bounded(t, 3*time.Minute)
	for _, s := range starts {
		args := strings.Fields(s[1])
		if installed[args[0]] == "" {
			t.Errorf("the unit starts %s, which the package does not hold", args[0])
		}
		for i, a := range args[1:] {
			if name, path, ok := strings.Cut(a, "="); ok {
				if installed[path] == "" {
					t.Errorf("the unit names %s, which the package does not hold", path)
				}
				args[i+1] = name + "=" + filepath.Join("..", installed[path])
			}
		}
		cmd := exec.CommandContext(ctx, binary(ctx, t), append(args[1:], "-config.check")...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", s[0], err, out)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^EnvironmentFile=-?(.*)$`).FindAllStringSubmatch(unit, -1) {
		if installed[m[1]] == "" {
			t.Errorf("the unit reads %s, which the package does not hold", m[1])
		}
	}
	variables := settingsByVariable()
	for _, m := range regexp.MustCompile(`(?m)^#?([A-Z_]+)=`).FindAllStringSubmatch(read(t, "operations/packages/amphora.default"), -1) {
		if !variables[m[1]] {
			t.Errorf("amphora.default: no setting has the variable %s", m[1])
		}
	}
	for _, user := range regexp.MustCompile(`(?m)^(?:User|Group)=(.*)$`).FindAllStringSubmatch(unit, -1) {
		if !strings.Contains(read(t, "operations/packages/preinstall.sh"), user[1]) {
			t.Errorf("nobody makes %s", user[0])
		}
	}
}

// TestAPackagedProcessWritesBelowItsDirectoryOnly: systemd lets it write nowhere else, and reads relative paths there.
func TestAPackagedProcessWritesBelowItsDirectoryOnly(t *testing.T) {
	t.Parallel()
	set := config.NewSet()
	set.Mount("", new(app.Config))
	must(t, set.LoadYAML("amphora.yaml", []byte(read(t, "operations/packages/amphora.yaml"))))
	unit := read(t, "operations/systemd/amphora.service")
	if !strings.Contains(unit, "\nStateDirectory=amphora\n") || !strings.Contains(unit, "\nWorkingDirectory=/var/lib/amphora\n") {
		t.Fatal("the unit has another directory than the configuration")
	}
	dirs := 0
	for _, f := range set.Fields() {
		v := f.Value()
		if !strings.HasPrefix(v, "/") || f.Default == v {
			continue
		}
		dirs++
		if !strings.HasPrefix(v, "/var/lib/amphora/") {
			t.Errorf("%s is %s", f.Path, v)
		}
	}
	if dirs < 5 {
		t.Errorf("only %d settings are paths", dirs)
	}
}

// TestTheImageIsOfTheProgramThatIsBuiltHere holds the Dockerfile against the module and the settings.
func TestTheImageIsOfTheProgramThatIsBuiltHere(t *testing.T) {
	t.Parallel()
	file := read(t, "operations/docker/Dockerfile")
	one := func(expression, text string) string {
		m := regexp.MustCompile(expression).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("there is no %s", expression)
		}
		return m[1]
	}
	if image, module := one(`golang:([0-9.]+)`, file), one(`(?m)^go ([0-9]+\.[0-9]+)`, read(t, "go.mod")); image != module {
		t.Errorf("the image is built with Go %s, the module wants %s", image, module)
	}
	set := config.NewSet()
	set.Mount("", new(app.Config))
	var ports []string
	for _, f := range set.Fields() {
		if slices.Contains([]string{"server.http_listen_port", "server.grpc_listen_port", "memberlist.bind_port"}, f.Path) {
			ports = append(ports, f.Default)
		}
	}
	exposed := strings.Fields(one(`(?m)^EXPOSE (.*)$`, file))
	slices.Sort(ports)
	slices.Sort(exposed)
	if len(ports) != 3 || !slices.Equal(ports, exposed) {
		t.Errorf("the image exposes %q, the program listens on %q", exposed, ports)
	}
	if !strings.Contains(file, ":nonroot\n") {
		t.Error("the image runs as root")
	}
	for _, dir := range regexp.MustCompile(`(?m)^WORKDIR (/var.*)$`).FindAllStringSubmatch(file, -1) {
		if !regexp.MustCompile(`(?m)^COPY .*--chown=nonroot:nonroot .* ` + dir[1] + `$`).MatchString(file) {
			t.Errorf("the user of the image cannot write to %s", dir[1])
		}
	}
	if out := one(`-o (\S+) `, file); !strings.Contains(file, "COPY --from=build "+out+" "+one(`ENTRYPOINT \["([^"]+)"`, file)+"\n") {
		t.Errorf("%s does not become what the image starts", out)
	}
	packages := regexp.MustCompile(`(?m)-X (\S+)\.(version|revision)=`).FindAllStringSubmatch(file, -1)
	for _, p := range packages {
		if !strings.Contains(read(t, "Makefile"), p[1]) {
			t.Errorf("%s is not where the Makefile puts the version", p[1])
		}
	}
	if len(packages) != 2 {
		t.Error("the program does not know its version")
	}
}
