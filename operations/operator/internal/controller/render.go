package controller

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/amphora-metrics/amphora/operations/helm"
	"github.com/amphora-metrics/amphora/operations/operator/api/v1alpha1"
	"github.com/amphora-metrics/amphora/operations/operator/internal/zones"
)

const (
	manager      = "amphora-operator"
	managedBy    = "app.kubernetes.io/managed-by"
	defaultSize  = "small"
	defaultPlace = "us-east-1" // the chart's auth.regions
)

// Installer turns clusters into objects of Kubernetes.
type Installer struct {
	chart   *chart.Chart
	presets map[string][]byte
	// Peer is what network policies let through to the inner ports: the operator. Nil: none.
	Peer map[string]any
}

// NewInstaller reads the chart that is in the program.
func NewInstaller() (*Installer, error) {
	in := &Installer{presets: map[string][]byte{"single": []byte("{mode: single, storage: {backend: filesystem}}")}}
	var files []*loader.BufferedFile
	err := fs.WalkDir(helm.Chart, "amphora", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(helm.Chart, path)
		name := strings.TrimPrefix(path, "amphora/")
		files = append(files, &loader.BufferedFile{Name: name, Data: data})
		if size, ok := strings.CutPrefix(name, "values-"); ok {
			in.presets[strings.TrimSuffix(size, ".yaml")] = data
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the chart: %w", err)
	}
	in.chart, err = loader.LoadFiles(files)
	return in, err
}

// fullName is what names of a cluster's objects begin with, as the chart says.
func fullName(c *v1alpha1.Cluster) string {
	if strings.Contains(c.Name, "amphora") {
		return c.Name
	}
	return c.Name + "-amphora"
}

// numbers keeps them as they are written: 1000000 must not become 1e+06.
func numbers(d *json.Decoder) *json.Decoder {
	d.UseNumber()
	return d
}

func own(c *v1alpha1.Cluster) map[string]any {
	out := map[string]any{}
	if c.Spec.Values != nil {
		_ = yaml.Unmarshal(c.Spec.Values.Raw, &out, numbers) // JSON that the API server took as an object
	}
	return out
}

// region is the first that clients of a cluster sign for.
func region(c *v1alpha1.Cluster) string {
	list, _, _ := unstructured.NestedStringSlice(own(c), "auth", "regions")
	return append(list, defaultPlace)[0]
}

func authSecret(c *v1alpha1.Cluster) string {
	auth, _ := own(c)["auth"].(map[string]any)
	if name, _ := auth["existingSecret"].(string); name != "" {
		return name
	}
	return fullName(c) + "-auth"
}

func endpoint(c *v1alpha1.Cluster) string {
	domain, _ := own(c)["clusterDomain"].(string)
	if domain == "" {
		domain = "cluster.local"
	}
	return fmt.Sprintf("http://%s.%s.svc.%s", fullName(c), c.Namespace, domain)
}

// Rendered is what a cluster consists of.
type Rendered struct {
	Mode    string
	Objects []*unstructured.Unstructured // in the order in which they are applied
}

// render returns a *fault if the values are wrong. Budgets let a whole zone go if guarded, as the webhook then keeps it to one.
func (in *Installer) render(c *v1alpha1.Cluster, overrides map[string]any, guarded bool) (*Rendered, error) {
	values, err := in.values(c, overrides)
	if err != nil {
		return nil, err
	}
	all, err := chartutil.ToRenderValues(in.chart, values, chartutil.ReleaseOptions{Name: c.Name, Namespace: c.Namespace, Revision: 1, IsInstall: true}, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, faultf(reasonInvalid, "values: %v", err)
	}
	texts, err := engine.Render(in.chart, all)
	if err != nil {
		return nil, faultf(reasonInvalid, "values: %v", err)
	}
	merged, _ := all["Values"].(chartutil.Values)
	out := &Rendered{}
	out.Mode, _ = merged["mode"].(string)
	for name, text := range texts {
		if !strings.HasSuffix(name, ".yaml") {
			continue
		}
		if err := out.add(text); err != nil {
			return nil, faultf(reasonInvalid, "values make no YAML of %s: %v", name, err)
		}
	}
	slices.SortFunc(out.Objects, func(a, b *unstructured.Unstructured) int {
		return strings.Compare(orderKey(a), orderKey(b))
	})
	for _, o := range out.Objects {
		o.SetNamespace(c.Namespace)
		labels := o.GetLabels()
		labels[managedBy] = manager
		delete(labels, "helm.sh/chart")
		o.SetLabels(labels)
	}
	if guarded {
		out.widenBudgets()
	}
	return out, nil
}

func (in *Installer) values(c *v1alpha1.Cluster, overrides map[string]any) (map[string]any, error) {
	preset := c.Spec.Preset
	if preset == "" {
		preset = defaultSize
	}
	var base map[string]any
	if err := yaml.Unmarshal(in.presets[preset], &base, numbers); err != nil || base == nil {
		return nil, faultf(reasonInvalid, "there is no preset %q", preset)
	}
	values := chartutil.CoalesceTables(own(c), base)
	if c.Spec.Image != "" {
		i := strings.LastIndexByte(c.Spec.Image, ':')
		values = chartutil.CoalesceTables(map[string]any{"image": map[string]any{"repository": c.Spec.Image[:i], "tag": c.Spec.Image[i+1:]}}, values)
	}
	if len(overrides) > 0 {
		values = chartutil.CoalesceTables(map[string]any{"overrides": overrides}, values)
	}
	if in.Peer != nil {
		policy, _ := values["networkPolicy"].(map[string]any)
		peers, ok := policy["scrapers"].([]any)
		if !ok {
			peers, _ = in.chart.Values["networkPolicy"].(map[string]any)["scrapers"].([]any)
		}
		values = chartutil.CoalesceTables(map[string]any{"networkPolicy": map[string]any{"scrapers": append(slices.Clone(peers), in.Peer)}}, values)
	}
	return values, nil
}

func (r *Rendered) add(text string) error {
	docs := kyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		text, err := yaml.YAMLToJSON(doc)
		if err != nil {
			return err
		}
		if string(text) == "null" {
			continue // comments
		}
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(text); err != nil {
			return err
		}
		r.Objects = append(r.Objects, o)
	}
}

// orderKey puts what pods need before the pods.
func orderKey(o *unstructured.Unstructured) string {
	rank := "1"
	switch o.GetKind() {
	case "ServiceAccount", "Secret", "ConfigMap":
		rank = "0"
	case "Deployment", "StatefulSet":
		rank = "2"
	case "HorizontalPodAutoscaler":
		rank = "3"
	}
	return rank + o.GetKind() + "/" + o.GetName()
}

// widenBudgets lets as many pods of a component go as a zone of it has.
func (r *Rendered) widenBudgets() {
	largest := map[string]int64{}
	for _, o := range r.Objects {
		if component, _ := zoneOf(o); component != "" {
			n, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas")
			largest[component] = max(largest[component], n, 1)
		}
	}
	for _, o := range r.Objects {
		labels, _, _ := unstructured.NestedStringMap(o.Object, "spec", "selector", "matchLabels")
		if n, ok := largest[labels[zones.ComponentLabel]]; ok && o.GetKind() == "PodDisruptionBudget" {
			_ = unstructured.SetNestedField(o.Object, n, "spec", "maxUnavailable") // spec is a map: the chart wrote it
		}
	}
}

// zoneOf returns the component and zone of a StatefulSet, empty for all else.
func zoneOf(o *unstructured.Unstructured) (component, zone string) {
	if o.GetKind() != "StatefulSet" {
		return "", ""
	}
	labels, _, _ := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
	if labels[zones.ZoneLabel] == "" {
		return "", ""
	}
	return labels[zones.ComponentLabel], labels[zones.ZoneLabel]
}
