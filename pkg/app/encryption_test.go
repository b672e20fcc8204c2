package app

import (
	"testing"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/ruler"
	usageinsights "github.com/amphora-metrics/amphora/pkg/usage"
)

func TestEveryObjectOfATenantIsKnownToBeItsOwn(t *testing.T) {
	const id = "ws-1.json"
	rules, err := ruler.DocumentKey(id, "a/b")
	if err != nil {
		t.Fatal(err)
	}
	document := func(key string) string { return docstore.Prefix + "/" + key }
	for _, object := range []string{
		id + "/01J/index", id + "/bucket-index.json.gz", id + "/markers/x", "__amphora_cluster/alertmanager/" + id + "/fullstate",
		document(rules), document(definitionKey(id)), document(deletionKey(id)), document(usageinsights.Documents + id),
		document("control/workspaces/" + id + ".json"), document("control/withdrawn/" + id + "/" + rules),
	} {
		if got, ok := ownerOf(object); !ok || got != id {
			t.Errorf("%s is of %q, %v", object, got, ok)
		}
	}
	for _, object := range []string{
		"__amphora_cluster/audit/2026/01/01/x.json.gz", document("iam/accounts/" + id), document("control/accounts/" + id),
		document("control/scrapers/" + id), "__amphora_cluster/" + id, "__mimir_cluster/x",
	} {
		if got, ok := ownerOf(object); ok {
			t.Errorf("%s is of %q", object, got)
		}
	}
}
