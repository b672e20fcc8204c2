package bucket

import (
	"math"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// The backends of Config.Backend.
const (
	Filesystem = "filesystem"
	S3         = "s3"
	GCS        = "gcs"
	Azure      = "azure"
)

// Config says where objects lie. It is mounted once for each kind of data, for blocks as
// blocks_storage.
type Config struct {
	Backend       string
	StoragePrefix string

	Filesystem FilesystemConfig
	S3         S3Config
	GCS        GCSConfig
	Azure      AzureConfig

	Prices Prices
}

// Prices are what an operator pays for 1,000 requests, in any currency. 0: they are not counted.
type Prices struct{ Read, Write, List float64 }

// any says whether something has a price.
func (p Prices) any() bool { return p != Prices{} }

// FilesystemConfig is the filesystem backend: one machine, or a shared POSIX mount.
type FilesystemConfig struct{ Dir string }

// S3Config is Amazon S3 and everything that speaks its API.
type S3Config struct {
	Endpoint        string
	Region          string
	BucketName      string
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	Insecure        bool
	NativeAWSAuth   bool
	BucketLookup    string
	StorageClass    string
	SSEType         string
	SSEKMSKeyID     string
	SSEKMSContext   string
}

// GCSConfig is Google Cloud Storage.
type GCSConfig struct {
	BucketName     string
	ServiceAccount string
}

// AzureConfig is Azure Blob Storage.
type AzureConfig struct {
	AccountName      string
	AccountKey       string
	ConnectionString string
	ContainerName    string
	EndpointSuffix   string
	UserAssignedID   string
}

// Declare names each setting once: flag, YAML key, default and doc come from this line.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.Backend, "backend", Filesystem, "Object storage: filesystem, s3, gcs or azure.")
	s.String(&c.StoragePrefix, "storage-prefix", "", "Prefix of all objects in the bucket, letters and digits only, so that one bucket can serve several clusters.")
	s.Mount("filesystem", &c.Filesystem)
	s.Mount("s3", &c.S3)
	s.Mount("gcs", &c.GCS)
	s.Mount("azure", &c.Azure)
	s.Mount("request_prices", &c.Prices)
}

// Declare is part of config.Declarer.
func (p *Prices) Declare(s *config.Set) {
	s.Float(&p.Read, "read", 0, "Price of 1,000 requests that read an object or its attributes, in any currency; amphora_objstore_estimated_cost_total then estimates the cost. 0: not counted.").Expert()
	s.Float(&p.Write, "write", 0, "Price of 1,000 requests that write an object. Deletions count as free. 0: not counted.").Expert()
	s.Float(&p.List, "list", 0, "Price of 1,000 requests that list objects. 0: not counted.").Expert()
}

// Validate refuses what cannot work.
func (p *Prices) Validate() error {
	for name, v := range map[string]float64{"read": p.Read, "write": p.Write, "list": p.List} {
		if v < 0 || math.IsNaN(v) || math.IsInf(v, 0) {
			return config.Wrong(name, "is %g; a price is 0 or more", v)
		}
	}
	return nil
}

// Declare is part of config.Declarer.
func (c *FilesystemConfig) Declare(s *config.Set) {
	s.String(&c.Dir, "dir", "./data/blocks", "Directory of the filesystem backend.")
}

// Declare is part of config.Declarer.
func (c *S3Config) Declare(s *config.Set) {
	s.String(&c.Endpoint, "endpoint", "", "Host and port of the S3 API, without a scheme.")
	s.String(&c.Region, "region", "", "Region. Empty: the endpoint is asked.")
	s.String(&c.BucketName, "bucket-name", "", "Bucket.")
	s.String(&c.AccessKeyID, "access-key-id", "", "Access key; empty: environment, shared credentials file or instance role.")
	s.String(&c.SecretAccessKey, "secret-access-key", "", "Secret of the access key.").Masked()
	s.String(&c.SessionToken, "session-token", "", "Session token of temporary credentials.").Masked().Expert()
	s.Bool(&c.Insecure, "insecure", false, "Speak HTTP instead of HTTPS.")
	s.Bool(&c.NativeAWSAuth, "native-aws-auth-enabled", false, "Take credentials from the AWS SDK's default chain.").Expert()
	s.String(&c.BucketLookup, "bucket-lookup-type", "auto", "Where the bucket name goes in the URL: auto, path or virtual-hosted.").Expert()
	s.String(&c.StorageClass, "storage-class", "", "Storage class of new objects; empty: the bucket's default.").Expert()
	s.String(&c.SSEType, "sse.type", "", "Server-side encryption: empty, SSE-S3 or SSE-KMS.").Expert()
	s.String(&c.SSEKMSKeyID, "sse.kms-key-id", "", "Key of SSE-KMS.").Expert()
	s.String(&c.SSEKMSContext, "sse.kms-encryption-context", "", "Encryption context of SSE-KMS, a JSON object of strings.").Expert()
}

// Declare is part of config.Declarer.
func (c *GCSConfig) Declare(s *config.Set) {
	s.String(&c.BucketName, "bucket-name", "", "Bucket.")
	s.String(&c.ServiceAccount, "service-account", "", "Service account key as JSON; empty: application default credentials.").Masked()
}

// Declare is part of config.Declarer.
func (c *AzureConfig) Declare(s *config.Set) {
	s.String(&c.AccountName, "account-name", "", "Storage account.")
	s.String(&c.AccountKey, "account-key", "", "Key of the storage account; empty: managed identity or workload identity.").Masked()
	s.String(&c.ConnectionString, "connection-string", "", "Connection string, instead of an account key.").Masked().Expert()
	s.String(&c.ContainerName, "container-name", "", "Container; it must exist.")
	s.String(&c.EndpointSuffix, "endpoint-suffix", "blob.core.windows.net", "Domain after the account name.").Expert()
	s.String(&c.UserAssignedID, "user-assigned-id", "", "User-assigned managed identity.").Expert()
}

// Validate checks what does not need the network. Errors: Invalid.
func (c *Config) Validate() error {
	for i := range len(c.StoragePrefix) {
		b := c.StoragePrefix[i]
		if !('a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9') {
			return errs.New(errs.Invalid, "storage_prefix %q may hold letters and digits only", c.StoragePrefix)
		}
	}
	missing := ""
	switch c.Backend {
	case Filesystem:
		if c.Filesystem.Dir == "" {
			missing = "filesystem.dir"
		}
	case S3:
		switch {
		case c.S3.Endpoint == "":
			missing = "s3.endpoint"
		case c.S3.BucketName == "":
			missing = "s3.bucket_name"
		case (c.S3.AccessKeyID == "") != (c.S3.SecretAccessKey == ""):
			return errs.New(errs.Invalid, "s3.access_key_id and s3.secret_access_key must be set together")
		}
		if err := CheckEncryptionContext(c.S3.SSEKMSContext); err != nil {
			return errs.New(errs.Invalid, "s3.sse.kms_encryption_context: %w", err)
		}
	case GCS:
		if c.GCS.BucketName == "" {
			missing = "gcs.bucket_name"
		}
	case Azure:
		switch {
		case c.Azure.AccountName == "":
			missing = "azure.account_name"
		case c.Azure.ContainerName == "":
			missing = "azure.container_name"
		}
	default:
		return errs.New(errs.Invalid, "backend %q is not one of filesystem, s3, gcs, azure", c.Backend)
	}
	if missing != "" {
		return errs.New(errs.Invalid, "backend %s needs %s", c.Backend, missing)
	}
	return nil
}
