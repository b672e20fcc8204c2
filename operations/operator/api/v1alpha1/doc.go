// Package v1alpha1 owns the resources that the operator reads: Cluster, Tenant, TenantLimits, RuleNamespace and
// AlertmanagerConfig.
//
// +kubebuilder:object:generate=true
// +groupName=amphora.dev
package v1alpha1
