// Command etcd is the server that tests of rings in etcd run. It is a module of its own, because
// etcd's server cannot be installed by its name, and so that its dependencies are not Amphora's.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
