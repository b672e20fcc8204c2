package v1alpha1

import (
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Status is what became of a resource.
type Status struct {
	// ObservedGeneration is the generation of the resource that this is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Conditions of the resource: Ready, and of clusters Progressing.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// TenantReference names a tenant: a Tenant of the same namespace, or a cluster and the id of a tenant there.
// +kubebuilder:validation:XValidation:rule="has(self.name) ? !has(self.cluster) && !has(self.id) : has(self.cluster) && has(self.id)",message="either name, of a Tenant, or cluster and id"
type TenantReference struct {
	// Name of a Tenant.
	// +kubebuilder:validation:MinLength=1
	// +optional
	Name string `json:"name,omitempty"`

	// Cluster is the name of a Cluster.
	// +kubebuilder:validation:MinLength=1
	// +optional
	Cluster string `json:"cluster,omitempty"`

	// ID is what clients send in X-Scope-OrgID.
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9!._*'()-]{1,150}$`
	// +optional
	ID string `json:"id,omitempty"`
}

// TenantSpec is a tenant by its id, which exists by being used, or a workspace, which the cluster makes and names.
// +kubebuilder:validation:XValidation:rule="!has(self.id) || (!has(self.alias) && !has(self.tags) && self.deletionPolicy == 'Retain')",message="alias, tags and deletionPolicy are for workspaces, whose id the cluster chooses"
// +kubebuilder:validation:XValidation:rule="has(self.id) == has(oldSelf.id)",message="a tenant cannot become a workspace, nor the other way"
type TenantSpec struct {
	// Cluster is the name of a Cluster of the same namespace.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a tenant stays in its cluster"
	Cluster string `json:"cluster"`

	// ID of a tenant that is no workspace: what clients send in X-Scope-OrgID.
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9!._*'()-]{1,150}$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a tenant keeps its id"
	// +optional
	ID string `json:"id,omitempty"`

	// Alias of the workspace; the name of the resource if there is none.
	// +kubebuilder:validation:MaxLength=100
	// +optional
	Alias string `json:"alias,omitempty"`

	// Tags of the workspace, when it is made.
	// +optional
	Tags map[string]string `json:"tags,omitempty"`

	// DeletionPolicy says whether the workspace goes with the resource.
	// +kubebuilder:validation:Enum=Retain;Delete
	// +kubebuilder:default=Retain
	// +optional
	DeletionPolicy string `json:"deletionPolicy,omitempty"`
}

// TenantStatus is what became of a tenant.
type TenantStatus struct {
	Status `json:",inline"`

	// TenantID is what clients send in X-Scope-OrgID.
	// +optional
	TenantID string `json:"tenantID,omitempty"`

	// Cluster that the tenant is in.
	// +optional
	Cluster string `json:"cluster,omitempty"`
}

// Tenant is a tenant, or workspace, of a cluster.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:categories=amphora
// +kubebuilder:printcolumn:name="Cluster",type=string,JSONPath=`.spec.cluster`
// +kubebuilder:printcolumn:name="ID",type=string,JSONPath=`.status.tenantID`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
type Tenant struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec TenantSpec `json:"spec"`
	// +optional
	Status TenantStatus `json:"status,omitempty"`
}

// TenantList is a list of them.
// +kubebuilder:object:root=true
type TenantList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Tenant `json:"items"`
}

// TenantLimitsSpec is what a tenant may.
type TenantLimitsSpec struct {
	Tenant TenantReference `json:"tenant"`

	// Limits by their names in the overrides file.
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	Limits apiextensions.JSON `json:"limits"`
}

// TenantLimits are limits of one tenant of a cluster that the operator installed.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=tenantlimits,singular=tenantlimits,categories=amphora
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
type TenantLimits struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec TenantLimitsSpec `json:"spec"`
	// +optional
	Status Status `json:"status,omitempty"`
}

// TenantLimitsList is a list of them.
// +kubebuilder:object:root=true
type TenantLimitsList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TenantLimits `json:"items"`
}
