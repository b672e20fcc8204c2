package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Rule is one of a group, in the form of Prometheus's rule files.
// +kubebuilder:validation:XValidation:rule="has(self.record) != has(self.alert)",message="either record or alert"
type Rule struct {
	// +optional
	Record string `json:"record,omitempty"`
	// +optional
	Alert string `json:"alert,omitempty"`
	// +kubebuilder:validation:MinLength=1
	Expr string `json:"expr"`
	// +optional
	For string `json:"for,omitempty"`
	// +optional
	KeepFiringFor string `json:"keep_firing_for,omitempty"`
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
}

// RuleGroup is a group of rules that are evaluated together.
type RuleGroup struct {
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// +optional
	Interval string `json:"interval,omitempty"`
	// +optional
	QueryOffset string `json:"query_offset,omitempty"`
	// +kubebuilder:validation:Minimum=0
	// +optional
	Limit int `json:"limit,omitempty"`
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// SourceTenants are those that the rules of the group read.
	// +optional
	SourceTenants []string `json:"source_tenants,omitempty"`
	// +optional
	AlignEvaluationTime bool `json:"align_evaluation_time_on_interval,omitempty"`
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=500
	Rules []Rule `json:"rules"`
}

// RuleNamespaceSpec is all of a namespace of rules of a tenant.
// +kubebuilder:validation:XValidation:rule="has(self.namespace) == has(oldSelf.namespace)",message="a namespace keeps its name"
type RuleNamespaceSpec struct {
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="rules stay with their tenant"
	Tenant TenantReference `json:"tenant"`

	// Namespace is its name in the cluster; that of the resource if there is none.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a namespace keeps its name"
	// +optional
	Namespace string `json:"namespace,omitempty"`

	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=300
	// +listType=map
	// +listMapKey=name
	Groups []RuleGroup `json:"groups"`
}

// RuleNamespace is a namespace of rules of a tenant.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=amphora
// +kubebuilder:printcolumn:name="Tenant",type=string,JSONPath=`.status.tenantID`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
type RuleNamespace struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec RuleNamespaceSpec `json:"spec"`
	// +optional
	Status TenantStatus `json:"status,omitempty"`
}

// RuleNamespaceList is a list of them.
// +kubebuilder:object:root=true
type RuleNamespaceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RuleNamespace `json:"items"`
}

// SecretKey names an entry of a secret of the same namespace.
type SecretKey struct {
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// +kubebuilder:default=alertmanager.yaml
	// +optional
	Key string `json:"key,omitempty"`
}

// AlertmanagerConfigSpec is the configuration of a tenant's alertmanager.
// +kubebuilder:validation:XValidation:rule="has(self.config) != has(self.configSecret)",message="either config or configSecret"
type AlertmanagerConfigSpec struct {
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a configuration stays with its tenant"
	Tenant TenantReference `json:"tenant"`

	// Config is that of an Alertmanager, as YAML. One that holds secrets belongs into configSecret.
	// +kubebuilder:validation:MinLength=1
	// +optional
	Config string `json:"config,omitempty"`

	// ConfigSecret holds the same.
	// +optional
	ConfigSecret *SecretKey `json:"configSecret,omitempty"`

	// Templates by their file names.
	// +optional
	Templates map[string]string `json:"templates,omitempty"`
}

// AlertmanagerConfig is the configuration of a tenant's alertmanager.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=amphora
// +kubebuilder:printcolumn:name="Tenant",type=string,JSONPath=`.status.tenantID`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
type AlertmanagerConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec AlertmanagerConfigSpec `json:"spec"`
	// +optional
	Status TenantStatus `json:"status,omitempty"`
}

// AlertmanagerConfigList is a list of them.
// +kubebuilder:object:root=true
type AlertmanagerConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AlertmanagerConfig `json:"items"`
}
