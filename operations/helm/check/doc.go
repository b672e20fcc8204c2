// Package check holds the tests of the Helm chart. It is a module of its own so that the Kubernetes types do not become
// dependencies of the product.
package check
