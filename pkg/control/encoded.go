package control

import (
	"bytes"
	"encoding/base64"
)

// plain is the text of a configuration, or what it is the base64 of: some clients encode a member that was encoded
// already, as the aws command line does with what stands inside a structure. What was put stays as it is.
func plain(data []byte) []byte {
	text := bytes.TrimSpace(data)
	if len(text) == 0 || bytes.ContainsAny(text, ":{") { // as every mapping has, and base64 never
		return data
	}
	out, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return data
	}
	return out
}
