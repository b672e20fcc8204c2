// Command apiserver is Kubernetes's API server, which tests of the Helm chart install the chart into. It is
// a module of its own, because its module cannot be installed by its name, and so that its dependencies are
// not Amphora's.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() { os.Exit(cli.Run(app.NewAPIServerCommand())) }
