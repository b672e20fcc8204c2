package v1alpha1

import (
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Conditions of resources.
const (
	// Ready says that what the resource asks for is in force.
	Ready = "Ready"
	// Progressing says that a change of a cluster is under way.
	Progressing = "Progressing"
)

// SecretReference names a secret of the same namespace.
type SecretReference struct {
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
}

// ClusterSpec is either what to install or, with endpoint, where a cluster is that somebody else installed.
// +kubebuilder:validation:XValidation:rule="!has(self.endpoint) || (!has(self.preset) && !has(self.image) && !has(self.values))",message="a cluster with an endpoint is installed by somebody else: leave out preset, image and values"
type ClusterSpec struct {
	// Preset is what values begin with: the chart's values-small.yaml, -medium or -large, or one process with its data on its own disk.
	// +kubebuilder:validation:Enum=single;small;medium;large
	// +optional
	Preset string `json:"preset,omitempty"`

	// Image is repository:tag. Without it the chart's.
	// +kubebuilder:validation:Pattern=`^[^\s@]+:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`
	// +optional
	Image string `json:"image,omitempty"`

	// Values are those of the Helm chart, over the preset's, and held to its schema.
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	// +optional
	Values *apiextensions.JSON `json:"values,omitempty"`

	// Endpoint is where the gateway of a cluster is that somebody else installed: http://metrics.example.com.
	// +kubebuilder:validation:Pattern=`^https?://[^\s?#]+$`
	// +optional
	Endpoint string `json:"endpoint,omitempty"`

	// CredentialsSecret holds what the operator shows the gateway: accessKeyId and secretAccessKey (and region), or token. Without
	// it, the root credential that the chart made.
	// +optional
	CredentialsSecret *SecretReference `json:"credentialsSecret,omitempty"`

	// Paused leaves everything as it is.
	// +optional
	Paused bool `json:"paused,omitempty"`
}

// ClusterStatus is what became of a cluster.
type ClusterStatus struct {
	Status `json:",inline"`

	// Endpoint is where the operator reaches the gateway.
	// +optional
	Endpoint string `json:"endpoint,omitempty"`

	// Mode is the chart's, which cannot be changed while the cluster lives.
	// +optional
	Mode string `json:"mode,omitempty"`

	// Workloads that there are, and how many of them are ready: 9/10.
	// +optional
	Workloads string `json:"workloads,omitempty"`

	// Zones are the StatefulSets that change one zone at a time.
	// +optional
	// +listType=map
	// +listMapKey=name
	Zones []ZoneStatus `json:"zones,omitempty"`
}

// ZoneStatus is what became of one StatefulSet of a zone.
type ZoneStatus struct {
	// Name of the StatefulSet.
	Name string `json:"name"`
	// Component is the part of the cluster: ingester.
	Component string `json:"component"`
	// Zone that it runs in.
	Zone string `json:"zone"`
	// Generation of the StatefulSet that the operator applied last.
	Generation int64 `json:"generation"`
	// Current says that it is as the cluster asks, and all of its pods are ready.
	Current bool `json:"current"`
}

// Cluster is an Amphora cluster.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=amphora
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Workloads",type=string,JSONPath=`.status.workloads`
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.status.endpoint`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 32",message="names of clusters have at most 32 characters, as names of workloads begin with them"
type Cluster struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec ClusterSpec `json:"spec"`
	// +optional
	Status ClusterStatus `json:"status,omitempty"`
}

// ClusterList is a list of them.
// +kubebuilder:object:root=true
type ClusterList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Cluster `json:"items"`
}
