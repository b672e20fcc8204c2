package store

import (
	"github.com/hashicorp/memberlist"
	"github.com/prometheus/prometheus/promql"
	_ "github.com/thanos-io/objstore/providers/s3"

	"example.com/broken/pkg/later"
	"example.com/broken/tools/gen"
)

var (
	_ memberlist.Config
	_ promql.Vector
	_ = promql.NewEngine
	_ = later.X
	_ = gen.X
)
