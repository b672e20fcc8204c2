package transport

import (
	"github.com/grafana/dskit/instrument"
	"github.com/grafana/dskit/middleware"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc"

	pb "github.com/amphora-metrics/amphora/pkg/wire/deltapb"
)

// Deltas is the pool of clients of distributors. It is a service: stopping it closes all.
type Deltas struct {
	services.Service
	pool *pool[deltaClient]
}

// deltaClient is a client and what to close when it is not needed any more.
type deltaClient struct {
	pb.DeltasClient
	conn *grpc.ClientConn
}

// Close implements io.Closer.
func (c deltaClient) Close() error { return c.conn.Close() }

// NewDeltas returns a pool that connects to a distributor when it is called first. Calls carry the tenants
// for which their context acts, and return errors with the kinds and texts of the distributor.
func NewDeltas(cfg ClientConfig, deps ClientDeps) (*Deltas, error) {
	duration := promauto.With(deps.Registerer).NewHistogramVec(prometheus.HistogramOpts{Name: "amphora_distributor_client_request_duration_seconds",
		Help: "Time of calls to other distributors.", Buckets: instrument.DefBuckets}, []string{"operation", "status_code"})
	dial, err := dialer(cfg, peers{"distributor", deps.Registerer}, newBufferPool(), grpc.WithChainUnaryInterceptor(unaryClient, middleware.UnaryClientInstrumentInterceptor(duration)))
	if err != nil {
		return nil, err
	}
	p := newPool(func(addr string) (deltaClient, error) {
		conn, err := dial(addr)
		if err != nil {
			return deltaClient{}, err
		}
		return deltaClient{pb.NewDeltasClient(conn), conn}, nil
	})
	return &Deltas{Service: p.service(deps.InRing), pool: p}, nil
}

// For returns the client of the distributor at addr.
func (r *Deltas) For(addr string) (pb.DeltasClient, error) {
	c, err := r.pool.get(addr)
	if err != nil {
		return nil, err
	}
	return c, nil
}
