// Package bucket owns access to object storage: which backend a configuration names, and how it is
// reached, timed, retried and measured. What is stored in a bucket belongs to other rooms.
package bucket

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/thanos-io/objstore"
	"github.com/thanos-io/objstore/exthttp"
	"github.com/thanos-io/objstore/providers/azure"
	"github.com/thanos-io/objstore/providers/gcs"
	"github.com/thanos-io/objstore/providers/s3"

	"github.com/amphora-metrics/amphora/pkg/telemetry"
)

const (
	// maxRetries is how often one call is tried before its error is returned. The drivers back
	// off exponentially, so five tries span a few seconds: longer than a failover of the store,
	// shorter than a query's deadline.
	maxRetries = 5

	// responseHeaderTimeout ends a call whose server accepted the connection but never answers.
	// Completing a large multipart upload is the slowest answer.
	responseHeaderTimeout = 2 * time.Minute

	// gcsRequestTimeout is what the driver uses both for idle connections and as the deadline of
	// a whole request, body included; it must cover the transfer of a large index.
	gcsRequestTimeout = 30 * time.Minute

	// s3PartBytes is the part size of multipart uploads: 10,000 parts, the API's limit, make
	// 640 GB, and one part is held in memory for each upload.
	s3PartBytes = 64 << 20
)

// New opens the bucket that cfg names and measures it as component name. The caller closes it.
// No call is made to the store, so that a process can start while its store is down.
// Errors: Invalid.
func New(ctx context.Context, cfg Config, name string, logger *slog.Logger, reg prometheus.Registerer) (objstore.InstrumentedBucket, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b, err := open(ctx, cfg, name, logger)
	if err != nil {
		return nil, fmt.Errorf("open %s bucket for %s: %w", cfg.Backend, name, err)
	}
	if cfg.StoragePrefix != "" {
		b = objstore.NewPrefixedBucket(b, cfg.StoragePrefix)
	}
	return instrument(b, name, cfg.Prices, reg), nil
}

func open(ctx context.Context, cfg Config, name string, logger *slog.Logger) (objstore.Bucket, error) {
	log := telemetry.GoKit(logger.With("component", name, "backend", cfg.Backend))
	http := exthttp.DefaultHTTPConfig
	http.ResponseHeaderTimeout = model.Duration(responseHeaderTimeout)
	switch cfg.Backend {
	case S3:
		c, err := s3Config(cfg.S3, http)
		if err != nil {
			return nil, err
		}
		return s3.NewBucketWithConfig(log, c, name, nil)
	case GCS:
		http.IdleConnTimeout = model.Duration(gcsRequestTimeout)
		return gcs.NewBucketWithConfig(ctx, log, gcs.Config{
			Bucket:         cfg.GCS.BucketName,
			ServiceAccount: cfg.GCS.ServiceAccount,
			HTTPConfig:     http,
			MaxRetries:     maxRetries,
		}, name, nil)
	case Azure:
		return azure.NewBucketWithConfig(log, azureConfig(cfg.Azure, http), name, nil)
	default:
		return NewFilesystem(cfg.Filesystem.Dir)
	}
}

func s3Config(c S3Config, http exthttp.HTTPConfig) (s3.Config, error) {
	out := s3.DefaultConfig
	out.HTTPConfig = http
	out.Bucket, out.Endpoint, out.Region = c.BucketName, c.Endpoint, c.Region
	out.AccessKey, out.SecretKey, out.SessionToken = c.AccessKeyID, c.SecretAccessKey, c.SessionToken
	out.Insecure, out.AWSSDKAuth = c.Insecure, c.NativeAWSAuth
	out.PartSize, out.MaxRetries = s3PartBytes, maxRetries
	values, err := encryptionContext(c.SSEKMSContext)
	if err != nil {
		return s3.Config{}, fmt.Errorf("sse.kms_encryption_context: %w", err)
	}
	if values == nil {
		values = map[string]string{} // what the driver of blocks makes of none
	}
	out.SSEConfig = s3.SSEConfig{Type: c.SSEType, KMSKeyID: c.SSEKMSKeyID, KMSEncryptionContext: values}
	out.PutUserMetadata = map[string]string{}
	if c.StorageClass != "" {
		out.PutUserMetadata["X-Amz-Storage-Class"] = c.StorageClass
	}
	switch c.BucketLookup {
	case "", "auto":
		out.BucketLookupType = s3.AutoLookup
	case "path":
		out.BucketLookupType = s3.PathLookup
	case "virtual-hosted":
		out.BucketLookupType = s3.VirtualHostLookup
	default:
		return s3.Config{}, fmt.Errorf("bucket_lookup_type %q is not one of auto, path, virtual-hosted", c.BucketLookup)
	}
	return out, nil
}

func azureConfig(c AzureConfig, http exthttp.HTTPConfig) azure.Config {
	out := azure.DefaultConfig
	out.HTTPConfig = http
	out.StorageAccountName, out.StorageAccountKey = c.AccountName, c.AccountKey
	out.StorageConnectionString = c.ConnectionString
	out.ContainerName, out.UserAssignedID = c.ContainerName, c.UserAssignedID
	if c.EndpointSuffix != "" {
		out.Endpoint = c.EndpointSuffix
	}
	// Creating the container would need a call to the store, and rights a data plane should not
	// have.
	out.StorageCreateContainer = false
	out.PipelineConfig.MaxTries = maxRetries
	out.ReaderConfig.MaxRetryRequests = maxRetries
	return out
}
