package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Version is that of the resources.
func Version() schema.GroupVersion {
	return schema.GroupVersion{Group: "amphora.dev", Version: "v1alpha1"}
}

// AddToScheme makes the resources known to s.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(Version(),
		&Cluster{}, &ClusterList{}, &Tenant{}, &TenantList{}, &TenantLimits{}, &TenantLimitsList{},
		&RuleNamespace{}, &RuleNamespaceList{}, &AlertmanagerConfig{}, &AlertmanagerConfigList{})
	metav1.AddToGroupVersion(s, Version())
	return nil
}
