package transport

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/grafana/dskit/middleware"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// mostSourceBytes bounds what is logged of where a request comes from: headers may be long.
const mostSourceBytes = 512

// SourceConfig says whether the log tells where requests come from.
type SourceConfig struct {
	Enabled       bool
	Full          bool
	Header, Regex string
}

// Declare implements config.Declarer.
func (c *SourceConfig) Declare(s *config.Set) {
	s.Bool(&c.Enabled, "log-source-ips-enabled", false, "Log the source addresses of requests: the peer's, and, if that is one of auth.trusted_proxies, the one in Forwarded, X-Real-IP or X-Forwarded-For, the first header present.").Expert()
	s.Bool(&c.Full, "log-source-ips-full", false, "Log all addresses in such a header, not only the first.").Expert()
	s.String(&c.Header, "log-source-ips-header", "", "Header to read instead of these; needs server.log_source_ips_regex.").Expert()
	s.String(&c.Regex, "log-source-ips-regex", "", "Regular expression whose first group is the address in server.log_source_ips_header.").Expert()
}

// Validate implements config.Validator.
func (c *SourceConfig) Validate() error {
	if _, err := middleware.NewSourceIPs(c.Header, c.Regex, c.Full); err != nil {
		return config.Wrong("log_source_ips_regex", "or log_source_ips_header: %w", err)
	}
	return nil
}

// sources finds out where requests come from.
type sources struct {
	headers *middleware.SourceIPExtractor
	proxies proxied
}

// newSources returns nil if nobody wants to know. Errors: Invalid.
func newSources(cfg *SourceConfig, proxies []string) (*sources, error) {
	if !cfg.Enabled {
		return nil, nil
	}
	headers, err := middleware.NewSourceIPs(cfg.Header, cfg.Regex, cfg.Full)
	if err != nil {
		return nil, errs.New(errs.Invalid, "server.log_source_ips_regex: %w", err)
	}
	from, err := parseNetworks("auth.trusted_proxies", proxies)
	return &sources{headers, from}, err
}

type sourceKey struct{}

// SourceOf returns where the request of ctx comes from; empty: nobody wants to know.
func SourceOf(ctx context.Context) string {
	text, _ := ctx.Value(sourceKey{}).(string)
	return text
}

// note puts where requests come from into their contexts. Handlers behind may change the headers.
func (s *sources) note(next http.Handler) http.Handler {
	if s == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), sourceKey{}, s.of(r))))
	})
}

// of believes the headers of proxies alone: everybody else could write another's address into the log.
func (s *sources) of(r *http.Request) string {
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		peer = r.RemoteAddr
	}
	if at, err := netip.ParseAddr(peer); err != nil || !s.proxies.has(at) {
		return peer
	}
	text := strings.ToValidUTF8(s.headers.Get(r), "")
	return text[:min(len(text), mostSourceBytes)]
}
