// Package writer is a service.
package writer

import (
	_ "example.com/good/pkg/bucket/s3"
	"example.com/good/pkg/nouns"
)

// W writes one word.
type W struct{ Word nouns.Word }
