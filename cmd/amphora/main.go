// Command amphora runs the services that -target names.
package main

import (
	"fmt"
	"os"

	"github.com/amphora-metrics/amphora/pkg/app"
)

func main() {
	if err := app.Main(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "amphora:", err)
		os.Exit(1)
	}
}
