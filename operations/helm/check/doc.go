// Package check holds the tests of the Helm chart. It is a module of its own, so that Kubernetes's types
// are no dependency of the product.
package check
