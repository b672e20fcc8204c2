package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/amp"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

const gatewayIdentities = `
accounts:
  - id: "000000000000"
    users:
      - name: writer
        policies: [AmazonPrometheusRemoteWriteAccess]
        keys: [{id: AKIDWRITER01, secret: writer-secret-writer}]
      - name: owner
        policies: [AmazonPrometheusFullAccess]
        keys: [{id: AKIDOWNER001, secret: owner-secret-owner}]
      - name: reader
        keys: [{id: AKIDREADER01, secret: reader-secret-reader}]
        inline:
          q: {Version: "2012-10-17", Statement: {Effect: Allow, Action: ["aps:Query*", "aps:Get*"], Condition: {StringEquals: {"aws:ResourceTag/team": a}}, Resource: "*"}}
`

// signedGet gets a path of n, signed with one of the keys above.
func signedGet(ctx context.Context, t *testing.T, url, key, secret string) (int, string) {
	t.Helper()
	return signedGetBy(ctx, t, http.DefaultClient, url, key, secret)
}

func signedGetBy(ctx context.Context, t *testing.T, client *http.Client, url, key, secret string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	must(t, err)
	must(t, sigv4.Signer{AccessKey: key, Secret: secret, Region: "us-east-1", Service: "aps"}.Sign(r, nil, time.Now()))
	resp, err := client.Do(r)
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(body)
}

// TestASignedPrometheusWritesToItsWorkspace has a Prometheus that signs, as with Amazon's service.
func TestASignedPrometheusWritesToItsWorkspace(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 2*time.Minute)
	file := filepath.Join(t.TempDir(), "identities.yaml")
	must(t, os.WriteFile(file, []byte(gatewayIdentities), 0o600))
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true,
		Flags: append(busyFlags(), "-auth.enabled", "-auth.identity-file="+file), Nodes: []harness.Spec{{Name: "all", Target: "all"}}})
	owner := amp.New(amp.Options{Region: "us-east-1", BaseEndpoint: aws.String(c.Nodes()[0].URL("")),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDOWNER001", "owner-secret-owner", "")})
	made, err := owner.CreateWorkspace(ctx, &amp.CreateWorkspaceInput{Tags: map[string]string{"team": "a"}})
	must(t, err)
	other, err := owner.CreateWorkspace(ctx, &amp.CreateWorkspaceInput{Tags: map[string]string{"team": "b"}})
	must(t, err)
	base := c.Nodes()[0].URL("/workspaces/" + *made.WorkspaceId)
	prom, err := harness.StartPrometheus(ctx, harness.TestLog(t), harness.PrometheusOptions{
		Dir: t.TempDir(), Every: time.Second, Targets: []string{"127.0.0.1:1"}, PushURL: base + "/api/v1/remote_write",
		Sign: harness.Keys{ID: "AKIDWRITER01", Secret: "writer-secret-writer"},
	})
	if prom != nil {
		t.Cleanup(func() { _ = prom.Stop() })
	}
	harness.Need(t, err)

	query := base + `/api/v1/query?query=count(%7B__name__%3D~%22.%2B%22%7D)`
	must(t, harness.Poll(ctx, func(context.Context) error {
		status, body := signedGet(ctx, t, query, "AKIDREADER01", "reader-secret-reader")
		if status != 200 || !strings.Contains(body, `"value":[`) {
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	}))
	for name, try := range map[string]struct {
		url, key, secret, want string
		status                 int
	}{
		"a wrong secret":      {query, "AKIDREADER01", "x", "InvalidSignatureException", 403},
		"an unknown key":      {query, "AKIDNOBODY01", "x", "UnrecognizedClientException", 403},
		"who may only write":  {query, "AKIDWRITER01", "writer-secret-writer", "is not authorized to perform: aps:QueryMetrics", 403},
		"another workspace":   {strings.Replace(query, *made.WorkspaceId, *other.WorkspaceId, 1), "AKIDREADER01", "reader-secret-reader", "AccessDeniedException", 403},
		"pages of operators":  {c.Nodes()[0].URL("/config"), "AKIDREADER01", "reader-secret-reader", "amphora:Admin", 403},
		"what does not exist": {base + "/api/v1/nothing", "AKIDREADER01", "reader-secret-reader", "UnknownOperationException", 404},
	} {
		if status, body := signedGet(ctx, t, try.url, try.key, try.secret); status != try.status || !strings.Contains(body, try.want) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}
