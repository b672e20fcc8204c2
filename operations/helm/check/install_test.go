package check

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAnAPIServerTakesEveryObject makes each object of each way to install with an API server, which validates it, and
// says where a pod is more than Kubernetes's strictest profile allows, and what is going to be removed.
func TestAnAPIServerTakesEveryObject(t *testing.T) {
	s := startServer(t)
	metrics := s.namespace(t, "metrics") // where the library puts its objects
	s.tellsWhatIsWrong(t, metrics)
	for _, r := range renderings() {
		t.Run(r.name, func(t *testing.T) {
			namespace := s.namespace(t, "of-"+strings.ReplaceAll(r.name, " ", "-"))
			docs := documents(t, helm(t, append([]string{"template", "amphora", chart, "-n", namespace}, r.args...)...))
			for _, doc := range docs {
				s.create(t, namespace, doc)
			}
			t.Logf("%d objects", len(docs))
		})
	}
	t.Run("jsonnet", func(t *testing.T) {
		for _, doc := range documents(t, jsonnetText(t, `{}`)) {
			s.create(t, metrics, doc)
		}
	})
}

// namespace makes one whose pods are warned of.
func (s *server) namespace(t *testing.T, name string) string {
	t.Helper()
	a, err := s.do(http.MethodPost, "/api/v1/namespaces", []byte(`{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "`+name+`", "labels": {"pod-security.kubernetes.io/warn": "restricted"}}}`))
	if err != nil || a.status != http.StatusCreated {
		t.Fatalf("%v %d %s", err, a.status, a.body)
	}
	return name
}

// tellsWhatIsWrong shows that the server refuses and warns.
func (s *server) tellsWhatIsWrong(t *testing.T, namespace string) {
	t.Helper()
	pods := fmt.Sprintf(s.kinds["v1 Pod"], namespace) + "?dryRun=All&fieldValidation=Strict"
	for _, c := range []struct {
		spec   string
		status int
	}{
		{`{containers: [{name: a, image: b, imaage: c}]}`, http.StatusBadRequest},
		{`{containers: [{name: a, image: b, volumeMounts: [{name: c, mountPath: /d}]}]}`, http.StatusUnprocessableEntity},
	} {
		if a, err := s.do(http.MethodPost, pods, []byte("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: "+c.spec+"}")); err != nil || a.status != c.status {
			t.Errorf("%s: %v %d %s, want %d", c.spec, err, a.status, a.body, c.status)
		}
	}
	workload := []byte(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {hostNetwork: true, containers: [{name: a, image: b}]}}}}`)
	if a, err := s.do(http.MethodPost, fmt.Sprintf(s.kinds["apps/v1 Deployment"], namespace)+"?dryRun=All", workload); err != nil || a.status != http.StatusCreated || len(a.warnings) == 0 {
		t.Errorf("a pod in the network of its machine: %v %d %q", err, a.status, a.warnings)
	}
}

// TestTheChartIsInstalledUpgradedAndRemoved lets helm do all of it. What an upgrade must not change is the
// operator's key: without it nothing that was encrypted by it can be read.
func TestTheChartIsInstalledUpgradedAndRemoved(t *testing.T) {
	s := startServer(t)
	home := t.TempDir()
	for name, args := range map[string][]string{
		"single": {"--set", "mode=single,storage.backend=filesystem"},
		"small":  append([]string{"-f", filepath.Join(chart, "values-small.yaml")}, s3...),
		"medium": append([]string{"-f", filepath.Join(chart, "values-medium.yaml")}, s3...),
		"large":  append([]string{"-f", filepath.Join(chart, "values-large.yaml")}, s3...),
	} {
		t.Run(name, func(t *testing.T) {
			s.helm(t, home, append([]string{"install", "amphora", chart, "-n", name, "--create-namespace"}, args...)...)
			before, secret := s.workloads(t, name), s.secret(t, name)
			if len(before) == 0 || secret["operator.key"] == "" || secret["root-credential"] == "" {
				t.Fatalf("workloads %v, a secret with %d entries", before, len(secret))
			}
			s.helm(t, home, append([]string{"upgrade", "amphora", chart, "-n", name, "--set", "overrides.team.ingestion_rate=5,podLabels.a=b"}, args...)...)
			if after := s.workloads(t, name); !maps.Equal(before, after) {
				t.Errorf("workloads after an upgrade %v, before %v", after, before)
			}
			if !maps.Equal(secret, s.secret(t, name)) {
				t.Error("an upgrade changed the operator's key or the root credential")
			}
			s.helm(t, home, "uninstall", "amphora", "-n", name)
			if left := s.workloads(t, name); len(left) > 0 {
				t.Errorf("uninstalled, but %v are left", left)
			}
			if !maps.Equal(secret, s.secret(t, name)) {
				t.Error("the operator's key went with the release")
			}
		})
	}
}

// TestALargerPresetTakesTheVolumesOverAsTheChartSays: a StatefulSet cannot get other claims, so the API server
// refuses, and the sets are deleted first without their pods.
func TestALargerPresetTakesTheVolumesOverAsTheChartSays(t *testing.T) {
	s := startServer(t)
	home, namespace := t.TempDir(), "growing"
	preset := func(verb, name string) []string {
		return append([]string{verb, "amphora", chart, "-n", namespace, "--create-namespace", "-f", filepath.Join(chart, "values-"+name+".yaml")}, s3...)
	}
	s.helm(t, home, preset("install", "medium")...)
	secret := s.secret(t, namespace)
	if out, err := s.tryHelm(home, preset("upgrade", "large")...); err == nil || !strings.Contains(out, "updates to statefulset spec") {
		t.Fatalf("an upgrade that changes the claims of StatefulSets: %v\n%s", err, out)
	}
	for name, kind := range s.workloads(t, namespace) {
		if kind != "StatefulSet" {
			continue
		}
		// In the background: nobody is here to carry out that pods are orphaned.
		path := fmt.Sprintf(s.kinds["apps/v1 StatefulSet"], namespace) + "/" + name + "?propagationPolicy=Background"
		if a, err := s.do(http.MethodDelete, path, nil); err != nil || a.status != http.StatusOK {
			t.Fatalf("%v %d %s", err, a.status, a.body)
		}
	}
	s.helm(t, home, preset("upgrade", "large")...)
	var set struct {
		Spec struct {
			Replicas             int
			VolumeClaimTemplates []struct {
				Spec struct {
					Resources struct{ Requests map[string]string }
				}
			}
		}
	}
	s.get(t, fmt.Sprintf(s.kinds["apps/v1 StatefulSet"], namespace)+"/amphora-compactor", &set)
	if set.Spec.Replicas != 6 || len(set.Spec.VolumeClaimTemplates) != 1 || set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests["storage"] != "500Gi" {
		t.Errorf("compactors of the large preset: %+v", set.Spec)
	}
	if !maps.Equal(secret, s.secret(t, namespace)) {
		t.Error("another preset changed the operator's key or the root credential")
	}
}

// helm runs helm against the server.
func (s *server) helm(t *testing.T, home string, args ...string) {
	t.Helper()
	if out, err := s.tryHelm(home, args...); err != nil {
		t.Fatalf("helm %q: %v\n%s", args, err, out)
	}
}

// tryHelm returns what helm prints, and whether it failed.
func (s *server) tryHelm(home string, args ...string) (string, error) {
	cmd := exec.Command(helmPath(), append(args, "--kubeconfig", s.kubeconfig)...)
	cmd.Env = append(os.Environ(), "HOME="+home)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// workloads are the kinds of workloads of a namespace by their names.
func (s *server) workloads(t *testing.T, namespace string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, kind := range []string{"Deployment", "StatefulSet"} {
		var list struct {
			Items []struct{ Metadata struct{ Name string } }
		}
		s.get(t, fmt.Sprintf(s.kinds["apps/v1 "+kind], namespace), &list)
		for _, i := range list.Items {
			out[i.Metadata.Name] = kind
		}
	}
	return out
}

// secret is what the chart made for the gateway of a namespace.
func (s *server) secret(t *testing.T, namespace string) map[string]string {
	t.Helper()
	var secret struct{ Data map[string]string }
	s.get(t, fmt.Sprintf(s.kinds["v1 Secret"], namespace)+"/amphora-auth", &secret)
	return secret.Data
}
