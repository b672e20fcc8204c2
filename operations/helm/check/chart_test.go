package check

import (
	"bytes"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	yamlconv "sigs.k8s.io/yaml"
)

const chart = "../amphora"

// rendering is one way to install the chart.
type rendering struct {
	name string
	args []string
}

var s3 = []string{"--set", "storage.s3.bucketName=blocks"}

func renderings() []rendering {
	preset := func(name string, more ...string) rendering {
		return rendering{name, append([]string{"-f", filepath.Join(chart, "values-"+name+".yaml")}, append(more, s3...)...)}
	}
	return []rendering{
		{"default", s3}, preset("small"), preset("medium"), preset("large"),
		{"watched", append(watched(), s3...)}, {"roles watched", append([]string{"--set", "mode=roles"}, append(watched(), s3...)...)},
		{"single", []string{"--set", "mode=single", "--set", "storage.backend=filesystem"}},
		{"gcs", []string{"--set", "storage.backend=gcs", "--set", "storage.gcs.bucketName=b", "--set", "serviceAccount.annotations.iam\\.gke\\.io/gcp-service-account=x@y"}},
		{"azure", []string{"--set", "storage.backend=azure", "--set", "storage.azure.accountName=a", "--set", "storage.azure.containerName=c"}},
		{"secure", append([]string{"--set", "tls.internalSecret=certs,serviceMonitor.enabled=true,components.continuous-test.enabled=true"}, s3...)},
		{"secure, in transition", append([]string{"--set", "tls.internalSecret=certs,tls.http=false,tls.httpTransition=true,mode=roles"}, s3...)},
		{"everything", append([]string{
			"--set", "ingress.enabled=true,ingress.className=nginx,ingress.tlsSecret=t,serviceMonitor.enabled=true,serviceMonitor.basicAuthSecret=s",
			"--set", "storage.existingSecret=keys,auth.existingSecret=ids,tls.internalSecret=certs,networkPolicy.clients[0].namespaceSelector.matchLabels.a=b",
			"--set", "zones[0].name=one,zones[0].nodeSelector.topology\\.kubernetes\\.io/zone=a,extraEnv[0].name=GOGC,extraEnv[0].value=off,overrides.team.ingestion_rate=5",
		}, s3...)},
	}
}

// helmPath is where helm is: HELM names it, or it is found in .tools.
func helmPath() string {
	if path := os.Getenv("HELM"); path != "" {
		return path
	}
	return "../../../.tools/helm"
}

// helm runs helm without a cluster.
func helm(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(helmPath(), append(args, "--kube-version", "1.31.0")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helm %s: %v\n%s%s", strings.Join(args, " "), err, stderr.String(), out)
	}
	return string(out)
}

// objects decodes what was rendered, strictly: a field that Kubernetes does not know is an error.
func objects(t *testing.T, text string) []runtime.Object {
	t.Helper()
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})
	var out []runtime.Object
	for _, doc := range documents(t, text) {
		obj, _, err := strict.Decode(doc, nil, nil)
		if err != nil {
			t.Errorf("%v\n%s", err, doc)
			continue
		}
		out = append(out, obj)
	}
	return out
}

// documents are the objects of Kubernetes itself in what was rendered.
func documents(t *testing.T, text string) [][]byte {
	t.Helper()
	docs := yaml.NewDocumentDecoder(io.NopCloser(strings.NewReader(text)))
	var out [][]byte
	for {
		buf := make([]byte, 1<<20)
		n, err := docs.Read(buf)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		doc := buf[:n]
		if len(bytes.TrimSpace(stripComments(doc))) == 0 {
			continue
		}
		if headOf(t, doc).Kind != "ServiceMonitor" { // which is of the Prometheus operator
			out = append(out, doc)
		}
	}
}

// head says what an object is.
type head struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
}

func headOf(t *testing.T, doc []byte) head {
	t.Helper()
	var h head
	if err := yamlconv.Unmarshal(doc, &h); err != nil {
		t.Fatalf("%v\n%s", err, doc)
	}
	return h
}

func stripComments(doc []byte) []byte {
	var out []byte
	for line := range bytes.Lines(doc) {
		if !bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) && !bytes.HasPrefix(line, []byte("---")) {
			out = append(out, line...)
		}
	}
	return out
}

// workload is what Deployments and StatefulSets have in common.
type workload struct {
	name     string
	selector *metav1.LabelSelector
	pod      corev1.PodTemplateSpec
	claims   []corev1.PersistentVolumeClaim
	replicas *int32
}

func workloads(all []runtime.Object) []workload {
	var out []workload
	for _, o := range all {
		switch o := o.(type) {
		case *appsv1.Deployment:
			out = append(out, workload{o.Name, o.Spec.Selector, o.Spec.Template, nil, o.Spec.Replicas})
		case *appsv1.StatefulSet:
			out = append(out, workload{o.Name, o.Spec.Selector, o.Spec.Template, o.Spec.VolumeClaimTemplates, o.Spec.Replicas})
		}
	}
	return out
}

func TestTheChartIsSound(t *testing.T) {
	for _, r := range renderings() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			helm(t, append([]string{"lint", "--strict", chart}, r.args...)...)
			all := objects(t, helm(t, append([]string{"template", "amphora", chart, "-n", "metrics"}, r.args...)...))
			ws := workloads(all)
			if len(ws) == 0 {
				t.Fatal("no workloads")
			}
			for _, w := range ws {
				checkWorkload(t, w)
			}
			checkSelectors(t, all, ws)
		})
	}
}

// checkWorkload says what speaks against a workload by itself.
func checkWorkload(t *testing.T, w workload) {
	t.Helper()
	sel, err := metav1.LabelSelectorAsSelector(w.selector)
	if err != nil || !sel.Matches(labels.Set(w.pod.Labels)) {
		t.Errorf("%s: its selector does not match its pods: %v", w.name, err)
	}
	volumes := map[string]bool{}
	for _, v := range w.pod.Spec.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range w.claims {
		volumes[c.Name] = true
	}
	if u := w.pod.Spec.SecurityContext; u == nil || u.RunAsNonRoot == nil || !*u.RunAsNonRoot {
		t.Errorf("%s may run as root", w.name)
	}
	for _, c := range w.pod.Spec.Containers {
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("%s mounts the volume %s, which it does not have", w.name, m.Name)
			}
		}
		if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Cpu().IsZero() {
			t.Errorf("%s has no limit of memory, or asks for no CPU", w.name)
		}
		if s := c.SecurityContext; s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
			t.Errorf("%s may write to its image", w.name)
		}
	}
}

// checkSelectors looks whether every service, budget and scaler has what it is for.
func checkSelectors(t *testing.T, all []runtime.Object, ws []workload) {
	t.Helper()
	found := func(kind, name string, sel labels.Selector) {
		if !slices.ContainsFunc(ws, func(w workload) bool { return sel.Matches(labels.Set(w.pod.Labels)) }) {
			t.Errorf("%s %s selects no pods", kind, name)
		}
	}
	for _, o := range all {
		switch o := o.(type) {
		case *corev1.Service:
			found("service", o.Name, labels.SelectorFromSet(o.Spec.Selector))
		case *policyv1.PodDisruptionBudget:
			sel, err := metav1.LabelSelectorAsSelector(o.Spec.Selector)
			if err != nil {
				t.Error(err)
				continue
			}
			found("budget", o.Name, sel)
		case *autoscalingv2.HorizontalPodAutoscaler:
			i := slices.IndexFunc(ws, func(w workload) bool { return w.name == o.Spec.ScaleTargetRef.Name })
			if i < 0 || ws[i].replicas != nil {
				t.Errorf("scaler %s: its workload does not exist, or sets its replicas itself", o.Name)
			}
		}
	}
}

func TestValuesThatMeanNothingAreRefused(t *testing.T) {
	for name, args := range map[string][]string{
		"no bucket":               nil,
		"an unknown key":          append([]string{"--set", "storge.backend=s3"}, s3...),
		"an unknown component":    append([]string{"--set", "components.ingestor.replicas=3"}, s3...),
		"a directory for many":    {"--set", "storage.backend=filesystem"},
		"a test of one process":   {"--set", "mode=single,storage.backend=filesystem,components.continuous-test.enabled=true"},
		"a mode that is not":      append([]string{"--set", "mode=distributed"}, s3...),
		"replicas that are words": append([]string{"--set", "components.ingester.replicas=many"}, s3...),
	} {
		if out, err := exec.Command(helmPath(), append([]string{"template", "amphora", chart, "--kube-version", "1.31.0"}, args...)...).CombinedOutput(); err == nil {
			t.Errorf("%s is taken:\n%.500s", name, out)
		}
	}
}

// TestTheBinaryTakesWhatTheChartTellsIt runs every container's command line with the check of
// configurations instead of starting it, each once: most ways to install the chart have many in common.
func TestTheBinaryTakesWhatTheChartTellsIt(t *testing.T) {
	binary := os.Getenv("AMPHORA")
	if binary == "" {
		binary = "../../../bin/amphora"
	}
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("make build first: %v", err)
	}
	var checked sync.Map
	for _, r := range renderings() {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			all := objects(t, helm(t, append([]string{"template", "amphora", chart, "-n", "metrics"}, r.args...)...))
			dir := t.TempDir()
			files := configFiles(t, all, dir)
			config := configText(all)
			for _, w := range workloads(all) {
				for _, c := range w.pod.Spec.Containers {
					if _, before := checked.LoadOrStore(config+strings.Join(c.Args, "\n"), true); before {
						continue
					}
					args := []string{"-config.check"}
					for _, a := range c.Args {
						a = strings.NewReplacer("$(POD_NAME)", w.name+"-0", "$(POD_IP)", "10.0.0.1").Replace(a)
						for inner, outer := range files {
							a = strings.ReplaceAll(a, inner, outer)
						}
						args = append(args, a)
					}
					cmd := exec.Command(binary, args...)
					cmd.Env = append(os.Environ(), "AMPHORA_BLOCKS_STORAGE_AZURE_ACCOUNT_KEY=a2V5")
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Errorf("%s: %v\n%s\n%s", w.name, err, strings.Join(args, " "), out)
					}
				}
			}
		})
	}
}

// configText is what the configuration maps say.
func configText(all []runtime.Object) string {
	var text strings.Builder
	for _, o := range all {
		if c, ok := o.(*corev1.ConfigMap); ok {
			for _, name := range slices.Sorted(maps.Keys(c.Data)) {
				text.WriteString(c.Data[name])
			}
		}
	}
	return text.String()
}

// configFiles writes the files that processes find mounted, and returns where each is.
func configFiles(t *testing.T, all []runtime.Object, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	put := func(inner, name string, data []byte) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		files[inner] = path
	}
	for _, o := range all {
		switch o := o.(type) {
		case *corev1.ConfigMap:
			if text, ok := o.Data["limits.yaml"]; ok {
				put("/etc/amphora/runtime/limits.yaml", "limits.yaml", []byte(text))
			}
		case *corev1.Secret:
			put("/etc/amphora/auth/operator.key", "operator.key", o.Data["operator.key"])
			put("/etc/amphora/auth/identities.yaml", "identities.yaml", o.Data["identities.yaml"])
		}
	}
	for _, o := range all {
		if c, ok := o.(*corev1.ConfigMap); ok && c.Data["amphora.yaml"] != "" {
			text := c.Data["amphora.yaml"]
			for inner, outer := range files {
				text = strings.ReplaceAll(text, inner, outer)
			}
			var parsed map[string]any
			if err := yamlconv.UnmarshalStrict([]byte(text), &parsed); err != nil {
				t.Fatal(err)
			}
			put("/etc/amphora/amphora.yaml", "amphora.yaml", []byte(text))
		}
	}
	return files
}
