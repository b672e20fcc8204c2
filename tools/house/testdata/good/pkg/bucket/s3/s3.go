// Package s3 may know the provider's library.
package s3

import _ "github.com/thanos-io/objstore/providers/s3"
