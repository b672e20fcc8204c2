package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/encrypt"
	"github.com/thanos-io/objstore/exthttp"
	"github.com/thanos-io/objstore/providers/s3"
)

// s3Conditional swaps by If-Match and If-None-Match. Few stores know a conditional deletion, so
// a removed object is replaced by an empty one, which counts as absent and stays: it costs
// nothing, and deleting it could take what another process writes at that moment.
type s3Conditional struct {
	client *minio.Client
	bucket string
	sse    encrypt.ServerSide
}

func openS3Conditional(cfg S3Config) (Conditional, error) {
	http := exthttp.DefaultHTTPConfig
	c, err := s3Config(cfg, http)
	if err != nil {
		return nil, err
	}
	transport, err := exthttp.DefaultTransport(http)
	if err != nil {
		return nil, err
	}
	client, err := minio.New(c.Endpoint, &minio.Options{
		Creds: s3Credentials(c), Secure: !c.Insecure, Region: c.Region,
		Transport: transport, BucketLookup: c.BucketLookupType.MinioType(), MaxRetries: 1,
	})
	if err != nil {
		return nil, err
	}
	b := &s3Conditional{client: client, bucket: c.Bucket}
	switch c.SSEConfig.Type {
	case s3.SSES3:
		b.sse = encrypt.NewSSE()
	case s3.SSEKMS:
		b.sse, err = encrypt.NewSSEKMS(c.SSEConfig.KMSKeyID, c.SSEConfig.KMSEncryptionContext)
	}
	return b, err
}

// sseFor is how an object that is written now is encrypted.
func (b *s3Conditional) sseFor(ctx context.Context) encrypt.ServerSide {
	if sse, ok := ctx.Value(encryptionKey{}).(encrypt.ServerSide); ok {
		return sse
	}
	return b.sse
}

// s3Credentials takes them from where the driver of blocks does.
func s3Credentials(c s3.Config) *credentials.Credentials {
	switch {
	case c.AWSSDKAuth:
		return s3.NewAWSSDKAuth(c.Region)
	case c.AccessKey != "":
		return credentials.NewStaticV4(c.AccessKey, c.SecretKey, c.SessionToken)
	default:
		return credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{},
			&credentials.IAM{Client: &http.Client{Transport: http.DefaultTransport}},
		})
	}
}

func (b *s3Conditional) Close() error { return nil }

// read returns the object and whether it counts as absent; its version is set for an empty one.
func (b *s3Conditional) read(ctx context.Context, name string) (o Object, absent bool, err error) {
	r, err := b.client.GetObject(ctx, b.bucket, name, minio.GetObjectOptions{})
	if err != nil {
		return Object{}, false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err := readSmall(r)
	if err != nil {
		if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
			return Object{}, true, nil
		}
		return Object{}, false, fmt.Errorf("read object %s: %w", name, err)
	}
	info, err := r.Stat()
	if err != nil {
		return Object{}, false, fmt.Errorf("read object %s: %w", name, err)
	}
	return Object{Name: name, Data: data, Size: int64(len(data)), Version: info.ETag, Modified: info.LastModified}, len(data) == 0, nil
}

func (b *s3Conditional) Read(ctx context.Context, name string) (Object, error) {
	o, absent, err := b.read(ctx, name)
	if err != nil {
		return Object{}, err
	}
	if absent {
		return Object{}, ErrAbsent
	}
	return o, nil
}

func (b *s3Conditional) put(ctx context.Context, name string, data []byte, expect string) (string, error) {
	// Parts would make the condition that of the last call only.
	opts := minio.PutObjectOptions{ServerSideEncryption: b.sseFor(ctx), DisableMultipart: true}
	if expect == "" {
		opts.SetMatchETagExcept("*")
	} else {
		opts.SetMatchETag(expect)
	}
	info, err := b.client.PutObject(ctx, b.bucket, name, bytes.NewReader(data), int64(len(data)), opts)
	if err != nil {
		switch r := minio.ToErrorResponse(err); {
		case r.StatusCode == http.StatusPreconditionFailed, r.StatusCode == http.StatusConflict,
			// A store says that the object a condition names is not there.
			r.Code == minio.NoSuchKey:
			return "", ErrChanged
		}
		return "", fmt.Errorf("write object %s: %w", name, err)
	}
	return info.ETag, nil
}

func (b *s3Conditional) Swap(ctx context.Context, name string, data []byte, expect string) (string, error) {
	if len(data) == 0 {
		return "", fmt.Errorf("object %s would be empty", name)
	}
	v, err := b.put(ctx, name, data, expect)
	if expect != "" || !errors.Is(err, ErrChanged) {
		return v, err
	}
	o, absent, err := b.read(ctx, name)
	if err != nil {
		return "", err
	}
	if !absent {
		return "", ErrChanged
	}
	return b.put(ctx, name, data, o.Version)
}

func (b *s3Conditional) Remove(ctx context.Context, name, expect string) error {
	if expect == "" {
		return ErrChanged
	}
	_, err := b.put(ctx, name, nil, expect)
	return err
}

func (b *s3Conditional) List(ctx context.Context, prefix string) ([]Object, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the listing when it is left early
	var out []Object
	for o := range b.client.ListObjects(ctx, b.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, o.Err)
		}
		if o.Size > 0 {
			out = append(out, Object{Name: o.Key, Size: o.Size, Version: o.ETag, Modified: o.LastModified})
		}
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(x, y Object) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}
