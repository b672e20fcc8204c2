package bucket

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/minio/minio-go/v7/pkg/encrypt"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/providers/s3"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// The kinds of encryption of Encryption.Type, as S3Config.SSEType and overrides of tenants name them.
const (
	SSES3  = "SSE-S3"
	SSEKMS = "SSE-KMS"
)

// Encryption is how S3 encrypts an object that is written. Without a type that follows from the
// settings of the bucket, and the rest counts for nothing.
type Encryption struct {
	Type    string // "", SSES3 or SSEKMS
	KeyID   string // of SSEKMS; empty: the default key of the account
	Context string // of SSEKMS, a JSON object of texts; empty: none is sent
}

// CheckEncryptionContext says why text cannot be Encryption.Context.
func CheckEncryptionContext(text string) error {
	_, err := encryptionContext(text)
	return err
}

func encryptionContext(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	var out map[string]string
	if err := json.Unmarshal([]byte(text), &out); err != nil || out == nil {
		return nil, errs.New(errs.Invalid, "%q is not a JSON object of texts", text)
	}
	return out, nil
}

// server is what the driver calls it; nil leaves it to the settings of the bucket.
func (e Encryption) server() (encrypt.ServerSide, error) {
	switch e.Type {
	case "":
		return nil, nil
	case SSES3:
		return encrypt.NewSSE(), nil
	case SSEKMS:
		values, err := encryptionContext(e.Context)
		if err != nil {
			return nil, err
		}
		if values == nil {
			return encrypt.NewSSEKMS(e.KeyID, nil)
		}
		return encrypt.NewSSEKMS(e.KeyID, values)
	}
	return nil, errs.New(errs.Invalid, "encryption %q is not one of %s, %s", e.Type, SSES3, SSEKMS)
}

// Encrypter says how an object, named without the prefix of the storage, is to be encrypted. With an
// error the object is not written.
type Encrypter func(object string) (Encryption, error)

type encryptionKey struct{}

// encrypting returns ctx for writing the object.
func (of Encrypter) encrypting(ctx context.Context, object string) (context.Context, error) {
	e, err := of(object)
	if err != nil {
		return nil, fmt.Errorf("learn how object %s is to be encrypted: %w", object, err)
	}
	sse, err := e.server()
	if sse == nil || err != nil {
		return ctx, err
	}
	// The driver of blocks looks under its own key, that of documents under ours.
	return context.WithValue(s3.ContextWithSSEConfig(ctx, sse), encryptionKey{}, sse), nil
}

// Encrypting returns b, whose objects are written as of says. Only S3 knows the difference.
func Encrypting(b objstore.InstrumentedBucket, of Encrypter) objstore.InstrumentedBucket {
	return &encrypted{b, of}
}

type encrypted struct {
	objstore.InstrumentedBucket
	of Encrypter
}

func (b *encrypted) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	ctx, err := b.of.encrypting(ctx, name)
	if err != nil {
		return err
	}
	return b.InstrumentedBucket.Upload(ctx, name, r, opts...)
}

func (b *encrypted) WithExpectedErrs(expected objstore.IsOpFailureExpectedFunc) objstore.Bucket {
	return &encryptedPlain{b.InstrumentedBucket.WithExpectedErrs(expected), b.of}
}

// encryptedPlain is what encrypted becomes when it does not count some failures.
type encryptedPlain struct {
	objstore.Bucket
	of Encrypter
}

func (b *encryptedPlain) Upload(ctx context.Context, name string, r io.Reader, opts ...objstore.ObjectUploadOption) error {
	ctx, err := b.of.encrypting(ctx, name)
	if err != nil {
		return err
	}
	return b.Bucket.Upload(ctx, name, r, opts...)
}

// EncryptingConditional returns b, whose objects are written as of says. Only S3 knows the difference.
func EncryptingConditional(b Conditional, of Encrypter) Conditional {
	return &encryptedConditional{b, of}
}

type encryptedConditional struct {
	Conditional
	of Encrypter
}

func (b *encryptedConditional) Swap(ctx context.Context, name string, data []byte, expect string) (string, error) {
	ctx, err := b.of.encrypting(ctx, name)
	if err != nil {
		return "", err
	}
	return b.Conditional.Swap(ctx, name, data, expect)
}

// Remove may write, too: an empty object in the place of the one that goes.
func (b *encryptedConditional) Remove(ctx context.Context, name, expect string) error {
	ctx, err := b.of.encrypting(ctx, name)
	if err != nil {
		return err
	}
	return b.Conditional.Remove(ctx, name, expect)
}
