package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/thanos-io/objstore/exthttp"
)

// azureConditional swaps by ETag.
type azureConditional struct{ container *container.Client }

func openAzureConditional(cfg AzureConfig) (Conditional, error) {
	opts := &container.ClientOptions{ClientOptions: azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}}}
	c := azureConfig(cfg, exthttp.DefaultHTTPConfig)
	url := fmt.Sprintf("https://%s.%s/%s", c.StorageAccountName, c.Endpoint, c.ContainerName)
	switch {
	case c.StorageConnectionString != "":
		client, err := container.NewClientFromConnectionString(c.StorageConnectionString, c.ContainerName, opts)
		return &azureConditional{client}, err
	case c.StorageAccountKey != "":
		key, err := container.NewSharedKeyCredential(c.StorageAccountName, c.StorageAccountKey)
		if err != nil {
			return nil, err
		}
		client, err := container.NewClientWithSharedKeyCredential(url, key, opts)
		return &azureConditional{client}, err
	}
	cred, err := azureToken(c.UserAssignedID)
	if err != nil {
		return nil, err
	}
	client, err := container.NewClient(url, cred, opts)
	return &azureConditional{client}, err
}

func azureToken(userAssigned string) (azcore.TokenCredential, error) {
	if userAssigned == "" {
		return azidentity.NewDefaultAzureCredential(nil)
	}
	return azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ID: azidentity.ClientID(userAssigned)})
}

func (b *azureConditional) Close() error { return nil }

// azureError words err and tells the two outcomes in which nothing was done.
func azureError(what, name string, err error) error {
	switch {
	case bloberror.HasCode(err, bloberror.BlobNotFound):
		return ErrAbsent
	case bloberror.HasCode(err, bloberror.ConditionNotMet, bloberror.BlobAlreadyExists):
		return ErrChanged
	}
	return fmt.Errorf("%s object %s: %w", what, name, err)
}

func (b *azureConditional) Read(ctx context.Context, name string) (Object, error) {
	r, err := b.container.NewBlobClient(name).DownloadStream(ctx, nil)
	if err != nil {
		return Object{}, azureError("read", name, err)
	}
	data, err := readSmall(r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return Object{}, azureError("read", name, err)
	}
	return Object{Name: name, Data: data, Size: int64(len(data)), Version: tagOf(r.ETag), Modified: timeOf(r.LastModified)}, nil
}

// tagOf is an entity tag in the form that conditions take: listings give it without its quotes.
func tagOf(t *azcore.ETag) string {
	if t == nil {
		return ""
	}
	if tag := string(*t); tag == "" || strings.HasSuffix(tag, `"`) {
		return tag
	}
	return `"` + string(*t) + `"`
}

func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

func conditions(expect string) *blob.AccessConditions {
	m := &blob.ModifiedAccessConditions{}
	if expect == "" {
		m.IfNoneMatch = to.Ptr(azcore.ETagAny)
	} else {
		m.IfMatch = to.Ptr(azcore.ETag(expect))
	}
	return &blob.AccessConditions{ModifiedAccessConditions: m}
}

func (b *azureConditional) Swap(ctx context.Context, name string, data []byte, expect string) (string, error) {
	if len(data) == 0 {
		return "", fmt.Errorf("object %s would be empty", name)
	}
	// One call, because the condition of a list of blocks is that of its last call only.
	r, err := b.container.NewBlockBlobClient(name).Upload(ctx, streaming.NopCloser(bytes.NewReader(data)), &blockblob.UploadOptions{AccessConditions: conditions(expect)})
	if err != nil {
		if err = azureError("write", name, err); errors.Is(err, ErrAbsent) {
			return "", ErrChanged
		}
		return "", err
	}
	return tagOf(r.ETag), nil
}

func (b *azureConditional) Remove(ctx context.Context, name, expect string) error {
	if expect == "" {
		return ErrChanged
	}
	_, err := b.container.NewBlobClient(name).Delete(ctx, &blob.DeleteOptions{AccessConditions: conditions(expect)})
	if err != nil {
		if err = azureError("delete", name, err); errors.Is(err, ErrAbsent) {
			return ErrChanged
		}
		return err
	}
	return nil
}

func (b *azureConditional) List(ctx context.Context, prefix string) ([]Object, error) {
	var out []Object
	for p := b.container.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &prefix}); p.More(); {
		page, err := p.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		if page.Segment == nil {
			continue
		}
		for _, it := range page.Segment.BlobItems {
			o := Object{}
			if it.Name != nil {
				o.Name = *it.Name
			}
			if a := it.Properties; a != nil {
				o.Version, o.Modified = tagOf(a.ETag), timeOf(a.LastModified)
				if a.ContentLength != nil {
					o.Size = *a.ContentLength
				}
			}
			out = append(out, o)
		}
	}
	return out, nil
}
