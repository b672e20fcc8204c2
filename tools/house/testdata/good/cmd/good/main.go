// Command good runs app.
package main

import (
	"fmt"

	"example.com/good/pkg/app"
)

func main() { fmt.Println(app.Run()) }
