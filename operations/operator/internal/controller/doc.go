// Package controller owns the loops that make the resources of v1alpha1 true.
package controller
