// Package util owns nothing, and climbs.
package util

import _ "example.com/broken/pkg/later"
