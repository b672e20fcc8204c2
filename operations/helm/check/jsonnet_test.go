package check

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	yamlconv "sigs.k8s.io/yaml"
)

// jsonnetText evaluates main.jsonnet with more said of its cluster; JSONNET names the program, or it is
// found in .tools.
func jsonnetText(t *testing.T, more string) string {
	t.Helper()
	path := os.Getenv("JSONNET")
	if path == "" {
		path = "../../../.tools/jsonnet"
	}
	main, err := os.ReadFile("../../jsonnet/main.jsonnet")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-J", "../../jsonnet", "-V", "namespace=metrics", "-V", "bucket=blocks", "-")
	cmd.Stdin = strings.NewReader(strings.Replace(string(main), "(import 'amphora/amphora.libsonnet')", "(import 'amphora/amphora.libsonnet') + "+more+" +", 1))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("jsonnet: %v\n%s", err, stderr.String())
	}
	var list struct{ Items []json.RawMessage }
	if err := json.Unmarshal(out, &list); err != nil {
		t.Fatal(err)
	}
	var docs []string
	for _, item := range list.Items {
		docs = append(docs, string(item))
	}
	return strings.Join(docs, "\n---\n")
}

// facts are what a cluster consists of, by kind and name: of workloads flags, ports, replicas, claims
// and mounts, of services selectors and ports, of configuration its content.
func facts(t *testing.T, all []runtime.Object) map[string]any {
	t.Helper()
	out := map[string]any{}
	for _, w := range workloads(all) {
		c := w.pod.Spec.Containers[0]
		mounts := map[string]string{}
		for _, m := range c.VolumeMounts {
			mounts[m.MountPath] = m.Name
		}
		out["workload "+w.name] = []any{
			c.Args, c.Ports, *w.replicas, c.Resources.String(), mounts, len(w.claims), w.pod.Labels,
			w.pod.Spec.SecurityContext.String(), c.SecurityContext.String(), *w.pod.Spec.TerminationGracePeriodSeconds,
		}
	}
	for _, o := range all {
		switch o := o.(type) {
		case *corev1.Service:
			out["service "+o.Name] = []any{o.Spec.Selector, o.Spec.Ports, o.Spec.ClusterIP, o.Spec.PublishNotReadyAddresses}
		case *policyv1.PodDisruptionBudget:
			out["budget "+o.Name] = []any{o.Spec.Selector, o.Spec.MaxUnavailable}
		case *corev1.ConfigMap:
			for name, text := range o.Data {
				var v any
				if err := yamlconv.Unmarshal([]byte(text), &v); err != nil {
					t.Fatal(err)
				}
				out["config "+o.Name+" "+name] = v
			}
		case *autoscalingv2.HorizontalPodAutoscaler, *appsv1.Deployment, *appsv1.StatefulSet:
		}
	}
	return out
}

func TestTheJsonnetLibraryMakesWhatTheChartMakes(t *testing.T) {
	compareLibrary(t, `{}`, s3)
	compareLibrary(t, `{ _config+:: { components+: { 'overrides-exporter'+: { enabled: true }, 'continuous-test'+: { enabled: true } } } }`, append(watched(), s3...))
	compareLibrary(t, `{ _config+:: { tls+: { secret: 'certs', gossip_transition: true } } }`, append([]string{"--set", "tls.internalSecret=certs,tls.gossipTransition=true"}, s3...))
	compareLibrary(t, `{ _config+:: { tls+: { secret: 'certs', http_transition: true }, components+: { 'continuous-test'+: { enabled: true } } } }`,
		append([]string{"--set", "tls.internalSecret=certs,tls.httpTransition=true,components.continuous-test.enabled=true"}, s3...))
	compareLibrary(t, `{ _config+:: { tls+: { secret: 'certs', http: false, http_transition: true } } }`, append([]string{"--set", "tls.internalSecret=certs,tls.http=false,tls.httpTransition=true"}, s3...))
	compareLibrary(t, `{ _config+:: { tls+: { secret: 'certs', http: false } } }`, append([]string{"--set", "tls.internalSecret=certs,tls.http=false"}, s3...))
}

// watched are the arguments that turn on what is off by default.
func watched() []string {
	return []string{"--set", "components.overrides-exporter.enabled=true,components.continuous-test.enabled=true"}
}

// compareLibrary compares what the library and the chart make, the library with more, the chart with args.
func compareLibrary(t *testing.T, more string, args []string) {
	t.Helper()
	chart := facts(t, objects(t, helm(t, append([]string{"template", "amphora", chart, "-n", "metrics"}, args...)...)))
	library := facts(t, objects(t, jsonnetText(t, more)))
	for _, name := range slices.Sorted(maps.Keys(chart)) {
		if _, ok := library[name]; !ok {
			t.Errorf("the library has no %s", name)
		} else if a, b := chart[name], library[name]; !reflect.DeepEqual(a, b) {
			t.Errorf("%s:\nchart   %v\nlibrary %v", name, a, b)
		}
	}
	for name := range library {
		if _, ok := chart[name]; !ok {
			t.Errorf("the chart has no %s", name)
		}
	}
}
