package integration

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/amphora-metrics/amphora/integration/harness"
)

// basic is the metadata of a call by a user of the identities in these tests.
func basic(ctx context.Context, user, tenant string) context.Context {
	key := keyOf(user)
	return metadata.AppendToOutgoingContext(ctx, "x-scope-orgid", tenant, "authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(key.AccessKey+":"+key.Secret)))
}

// TestCallsGoThroughTheGatewayToTheDistributorsOfTheRing has a gateway that is told the name of the ring alone, and
// two distributors of which one is killed. Clients speak OTLP over gRPC and say who they are.
func TestCallsGoThroughTheGatewayToTheDistributorsOfTheRing(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	port, calls := strconv.Itoa(freePort(t)), freePort(t)
	at := func(n int) harness.Spec { // members of a ring listen at the same port of hosts of their own
		host := "127.0.0." + strconv.Itoa(1+n)
		return harness.Spec{Name: "distributor-" + strconv.Itoa(n), Target: "distributor", Flags: []string{
			"-server.http-listen-address=" + host, "-server.http-listen-port=" + port, "-server.grpc-listen-address=" + host, "-ingester.ring.instance-addr=" + host,
		}}
	}
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 1, Flags: busyFlags(), Nodes: []harness.Spec{{Name: "services", Target: "ingester,store-gateway,querier"}}})
	file := filepath.Join(t.TempDir(), "identities.yaml")
	must(t, os.WriteFile(file, []byte(heldIdentities), 0o600))
	g, err := c.Add(harness.Spec{Name: "gateway", Target: "gateway", Flags: []string{"-auth.enabled", "-auth.identity-file=" + file,
		"-gateway.upstreams=distributor=ring+http://distributor:" + port + ",querier=" + c.Node("services").URL(""),
		"-server.otlp-grpc-listen-address=127.0.0.1", "-server.otlp-grpc-listen-port=" + strconv.Itoa(calls)}})
	must(t, err)
	must(t, g.WaitReady(ctx))
	var distributors []*harness.Node
	for n := 1; n <= 2; n++ {
		d, err := c.Add(at(n))
		must(t, err)
		distributors = append(distributors, d)
		eventually(ctx, t, d.Spec.Name+" to be ready at its own address", func() error {
			_, err := harness.Get(ctx, "http://127.0.0."+strconv.Itoa(1+n)+":"+port+"/ready")
			return err
		})
	}
	conn, err := grpc.NewClient("127.0.0.1:"+strconv.Itoa(calls), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer func() { _ = conn.Close() }()
	client := pmetricotlp.NewGRPCClient(conn)
	begin := time.Now()
	push := func(ctx context.Context, n int) error {
		out, err := client.Export(ctx, pmetricotlp.NewExportRequestFromMetrics(shopMetrics(begin.Add(time.Duration(n)*time.Millisecond))))
		if err == nil && out.PartialSuccess().RejectedDataPoints() != 0 {
			err = fmt.Errorf("rejected: %s", out.PartialSuccess().ErrorMessage())
		}
		return err
	}
	eventually(ctx, t, "a distributor is found", func() error { return push(basic(ctx, "WRITER", "shop"), 0) })
	for name, try := range map[string]struct {
		ctx  context.Context
		want codes.Code
	}{
		"nobody":                  {metadata.AppendToOutgoingContext(ctx, "x-scope-orgid", "shop"), codes.Unauthenticated},
		"a wrong secret":          {metadata.AppendToOutgoingContext(ctx, "x-scope-orgid", "shop", "authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(keyOf("FREE").AccessKey+":x"))), codes.Unauthenticated},
		"who may only read":       {basic(ctx, "READER", "shop"), codes.PermissionDenied},
		"a name that is no name":  {basic(ctx, "WRITER", "../shop"), codes.InvalidArgument},
		"who does not say whose":  {basic(ctx, "WRITER", ""), codes.Unauthenticated},
		"who may write, to write": {basic(ctx, "WRITER", "shop"), codes.OK},
	} {
		if err := push(try.ctx, 0); status.Code(err) != try.want {
			t.Errorf("%s: %v, want %s", name, err, try.want)
		}
	}
	ctx = basic(ctx, "WRITER", "shop")
	for n := range 8 {
		must(t, push(ctx, n))
	}
	eventually(ctx, t, "both distributors have calls", func() error {
		must(t, push(ctx, 0)) // which is there already
		for n := 1; n <= 2; n++ {
			page, err := harness.Get(ctx, "http://127.0.0."+strconv.Itoa(1+n)+":"+port+"/metrics")
			if err != nil {
				return err
			}
			if !strings.Contains(string(page), `amphora_distributor_otlp_requests_total{user="shop"}`) {
				return fmt.Errorf("distributor %d has none", n)
			}
		}
		return nil
	})
	must(t, distributors[0].Kill())
	failed := 0
	for n := 8; n < 48; n++ { // a client sends again what was on its way to the one that died
		must(t, harness.Poll(ctx, func(ctx context.Context) error {
			err := push(ctx, n)
			if err != nil {
				failed++
				if status.Code(err) != codes.Unavailable {
					return harness.Giveup(err)
				}
			}
			return err
		}))
	}
	if failed > 2 {
		t.Errorf("%d calls failed after one distributor died; only what was on its way to it may", failed)
	}
	eventually(ctx, t, "what was sent is there", func() error {
		r := call(ctx, t, "GET", g.URL("/prometheus/api/v1/query?query=count_over_time(room_temperature%5B5m%5D)"), nil, "X-Scope-OrgID", "shop", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("AKIDFREE0001:free-secret-free")))
		if r.status != http.StatusOK || !strings.Contains(r.body, `"48"`) {
			return fmt.Errorf("%s", r)
		}
		return nil
	})
	for _, path := range []string{"/prometheus/api/v1/query?query=1", "/config", "/workspaces", "/"} {
		r := call(ctx, t, "GET", "http://127.0.0.1:"+strconv.Itoa(calls)+path, nil, "X-Scope-OrgID", "shop", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("AKIDFREE0001:free-secret-free")))
		if r.header.Get("Grpc-Status") != "12" || r.body != "" {
			t.Errorf("%s on the listener for calls: %v %s", path, r.header, r)
		}
	}
}
