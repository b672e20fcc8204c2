package limits

import (
	"encoding/json"
	"fmt"
)

// How objects of a tenant are encrypted by S3.
var (
	S3SSEType = define("s3_sse_type", "storage.s3-sse-type", "", "",
		"How S3 encrypts new objects of the tenant: SSE-S3 or SSE-KMS. Empty: as blocks_storage.s3.sse says. Existing objects do not change.", "bucket").
		oneOf("", "SSE-S3", "SSE-KMS")
	S3SSEKMSKeyID = define("s3_sse_kms_key_id", "storage.s3-sse-kms-key-id", "", "",
		"KMS key for the objects of the tenant, if s3_sse_type is set. Empty: the account's default key.", "bucket")
	S3SSEKMSEncryptionContext = define("s3_sse_kms_encryption_context", "storage.s3-sse-kms-encryption-context", "", "",
		"Encryption context of SSE-KMS, a JSON object of strings, if s3_sse_type is set. Empty: none.", "bucket").
		must(jsonTexts)
)

func jsonTexts(text string) error {
	var out map[string]string
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil || out == nil {
		return fmt.Errorf("%q is not a JSON object of texts", text)
	}
	return nil
}
