package transport

import (
	"github.com/grafana/dskit/instrument"
	"github.com/grafana/dskit/middleware"
	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc"

	pb "github.com/amphora-metrics/amphora/pkg/wire/rulerpb"
)

// Rulers is the pool of clients of rulers. It is a service: stopping it closes all.
type Rulers struct {
	services.Service
	pool *pool[rulerClient]
}

// rulerClient is a client and what to close when it is not needed any more.
type rulerClient struct {
	pb.RulerClient
	conn *grpc.ClientConn
}

// Close implements io.Closer.
func (c rulerClient) Close() error { return c.conn.Close() }

// NewRulers returns a pool that connects to a ruler when it is called first. Calls carry the tenants
// for which their context acts, and return errors with the kinds and texts of the ruler.
func NewRulers(cfg ClientConfig, deps ClientDeps) (*Rulers, error) {
	duration := promauto.With(deps.Registerer).NewHistogramVec(prometheus.HistogramOpts{Name: "amphora_ruler_client_request_duration_seconds",
		Help: "Time of calls to other rulers.", Buckets: instrument.DefBuckets}, []string{"operation", "status_code"})
	dial, err := dialer(cfg, peers{"ruler", deps.Registerer}, newBufferPool(), grpc.WithChainUnaryInterceptor(unaryClient, middleware.UnaryClientInstrumentInterceptor(duration)))
	if err != nil {
		return nil, err
	}
	p := newPool(func(addr string) (rulerClient, error) {
		conn, err := dial(addr)
		if err != nil {
			return rulerClient{}, err
		}
		return rulerClient{pb.NewRulerClient(conn), conn}, nil
	})
	return &Rulers{Service: p.service(deps.InRing), pool: p}, nil
}

// For returns the client of the ruler at addr.
func (r *Rulers) For(addr string) (pb.RulerClient, error) {
	c, err := r.pool.get(addr)
	if err != nil {
		return nil, err
	}
	return c, nil
}
