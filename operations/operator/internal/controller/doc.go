// Package controller owns the reconcilers of the resources in v1alpha1.
package controller
