package app

import (
	"strings"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/limits"
	"github.com/amphora-metrics/amphora/pkg/tenant"
	usageinsights "github.com/amphora-metrics/amphora/pkg/usage"
)

// TenantEncryption says how the objects of tenants are encrypted, by their limits. What belongs to the
// cluster, such as identities and audit records, is encrypted as the bucket's settings say.
func TenantEncryption(of func(tenant.ID) (limits.View, error)) bucket.Encrypter {
	return func(object string) (bucket.Encryption, error) {
		id, ok := ownerOf(object)
		if !ok {
			return bucket.Encryption{}, nil
		}
		v, err := of(id)
		if err != nil {
			return bucket.Encryption{}, err
		}
		return bucket.Encryption{Type: limits.S3SSEType.Of(v), KeyID: limits.S3SSEKMSKeyID.Of(v), Context: limits.S3SSEKMSEncryptionContext.Of(v)}, nil
	}
}

func (a *App) encryption() bucket.Encrypter {
	return TenantEncryption(func(id tenant.ID) (limits.View, error) { return a.limits.For(id), nil })
}

// ownerOf is the tenant whose object it is; false for what is the cluster's.
func ownerOf(object string) (tenant.ID, bool) {
	rest := object
	if inside, ok := strings.CutPrefix(object, clusterDir+"/"); ok {
		key, document := strings.CutPrefix(object, docstore.Prefix+"/")
		switch {
		case !document:
			rest, ok = strings.CutPrefix(inside, "alertmanager/")
		default:
			rest, ok = ownDocument(key)
		}
		if !ok {
			return "", false
		}
	}
	first, _, _ := strings.Cut(rest, "/")
	id, err := tenant.Parse(first)
	return id, err == nil
}

// ownDocument returns what stands behind the directory of a kind of documents that are tenants'.
func ownDocument(key string) (string, bool) {
	for _, dir := range []string{"rules/", alertDocs, promotedDocs, grafanaDocs, "deletions/", usageinsights.Documents, "control/withdrawn/"} {
		if rest, ok := strings.CutPrefix(key, dir); ok {
			return rest, true
		}
	}
	rest, ok := strings.CutPrefix(key, "control/workspaces/")
	return strings.TrimSuffix(rest, ".json"), ok
}
