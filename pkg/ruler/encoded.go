package ruler

import (
	"bytes"
	"encoding/base64"
)

// inner is the text of data, or what data is the base64 of: following Amazon's guide, clients encode a file
// that is encoded already. What was put stays as it is.
func inner(data []byte) []byte {
	text := bytes.TrimSpace(data)
	if len(text) == 0 || bytes.ContainsAny(text, ":{") { // as every mapping has, and base64 never
		return data
	}
	plain, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return data
	}
	return plain
}
