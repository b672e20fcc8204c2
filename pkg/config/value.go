package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ParseInt reads an integer. Beside decimals it takes what YAML and its generators write for one:
// 10_000, 0x10 and 1e+06.
func ParseInt(s string) (int, error) {
	if n, err := strconv.Atoi(s); err == nil {
		return n, nil
	}
	if n, err := strconv.ParseInt(s, 0, 64); err == nil {
		return int(n), nil
	}
	const exact = 1 << 53 // beyond this a float64 is no longer every integer
	if f, err := strconv.ParseFloat(s, 64); err == nil && f == math.Trunc(f) && math.Abs(f) <= exact {
		return int(f), nil
	}
	return 0, fmt.Errorf("%q is not an integer", s)
}

// ParseFloat reads a number that is neither infinite nor NaN.
func ParseFloat(s string) (float64, error) {
	f, err := strconv.ParseFloat(strings.ReplaceAll(s, "_", ""), 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	return f, nil
}

// FormatFloat is the inverse of ParseFloat.
func FormatFloat(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

// ParseBool reads true or false, and the words YAML has for them.
func ParseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "yes", "on":
		return true, nil
	case "no", "off":
		return false, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("%q is neither true nor false", s)
	}
	return b, nil
}

// ParseStrings reads a list separated by commas. Blanks around an item do not count, and neither
// do empty items.
func ParseStrings(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
