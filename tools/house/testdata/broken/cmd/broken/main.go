// Command broken reaches past the wiring.
package main

import (
	"context"
	"flag"

	"example.com/broken/pkg/writer"
)

func main() {
	flag.Parse()
	_ = context.TODO()
	_ = writer.W{}
}
