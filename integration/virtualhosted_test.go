package integration

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/bucket/buckettest"
	"github.com/amphora-metrics/amphora/pkg/config"
)

const (
	// storeDomain is a name that nothing resolves: a proxy leads there.
	storeDomain = "oss-test.invalid"
	// virtualVariable tells the process that runs the laws where to go.
	virtualVariable = "AMPHORA_TEST_VIRTUAL_HOSTED"
)

// TestAStoreThatTakesBucketsInHostNamesAloneKeepsTheLaws is for stores such as that of Alibaba Cloud, which
// refuse requests with the bucket in the path. The laws run in a process that reaches names of hosts by a
// proxy, which refuses as such stores do.
func TestAStoreThatTakesBucketsInHostNamesAloneKeepsTheLaws(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if os.Getenv(virtualVariable) != "" {
		virtualHostedLaws(ctx, t)
		return
	}
	t.Setenv("VGW_VIRTUAL_DOMAIN", storeDomain)
	server, err := harness.StartS3(ctx, harness.TestLog(t), t.TempDir(), 0, "laws")
	harness.Need(t, err)
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	var passed, refused atomic.Int64
	forward := &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: server.Endpoint})
		r.Out.Host = r.In.Host // it is part of what is signed
	}}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "laws."+storeDomain {
			refused.Add(1)
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, "<Error><Code>SecondLevelDomainForbidden</Code><Message>The bucket you are attempting to access must be addressed using OSS third level domain.</Message></Error>")
			return
		}
		if payload := r.Header.Get("X-Amz-Content-Sha256"); r.Header.Get("Content-Encoding") == "aws-chunked" && payload != "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" || strings.HasSuffix(payload, "-TRAILER") {
			t.Errorf("%s %s comes with the payload %s, which OSS takes no chunks of", r.Method, r.URL, payload)
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, "<Error><Code>InvalidArgument</Code><Message>aws-chunked encoding is not supported with the specified x-amz-content-sha256 value.</Message></Error>")
			return
		}
		passed.Add(1)
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), virtualVariable+"="+server.AccessKey+" "+server.SecretKey+" "+server.Region, "HTTP_PROXY="+proxy.URL, "http_proxy=", "NO_PROXY=", "no_proxy=")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
	// The one refusal is that of a client that was told to put the bucket into the path.
	if passed.Load() < 50 || refused.Load() != 1 {
		t.Errorf("%d requests had the bucket in the name of the host, %d had not", passed.Load(), refused.Load())
	}
}

func virtualHostedLaws(ctx context.Context, t *testing.T) {
	words := strings.Fields(os.Getenv(virtualVariable))
	var c bucket.Config
	config.NewSet().Mount("blocks_storage", &c)
	c.Backend = bucket.S3
	c.S3.Endpoint, c.S3.Insecure, c.S3.BucketName, c.S3.BucketLookup = storeDomain, true, "laws", "virtual-hosted"
	c.S3.AccessKeyID, c.S3.SecretAccessKey, c.S3.Region = words[0], words[1], words[2]
	open := func() objstore.Bucket {
		b, err := bucket.New(ctx, c, "test", slog.New(slog.DiscardHandler), nil)
		must(t, err)
		return b
	}
	buckettest.RunConditional(t, func(t *testing.T) bucket.Conditional {
		b, err := bucket.OpenConditional(ctx, c, slog.New(slog.DiscardHandler))
		must(t, err)
		return b
	})
	runs := 0
	buckettest.Run(t, func(*testing.T) objstore.Bucket {
		runs++
		return objstore.NewPrefixedBucket(open(), fmt.Sprint("run", runs))
	})
	c.S3.BucketLookup = "path"
	if err := open().Upload(ctx, "x", strings.NewReader("text")); err == nil {
		t.Error("the store takes a bucket in the path")
	}
}
