package continuoustest

import (
	"net/url"
	"slices"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// The protocols of writes, by the names that the setting has.
const (
	protocolV1   = "prometheus"
	protocolV2   = "prometheus2"
	protocolOTLP = "otlp-http"
)

// defaultTenant is the tenant unless another is set.
const defaultTenant = "anonymous"

// Config is the settings of the test; app mounts it as tests.
type Config struct {
	SmokeTest     bool
	RunInterval   time.Duration
	WriteInterval time.Duration
	Write         WriteConfig
	Read          ReadConfig
	Client        ClientConfig
	Series        SeriesConfig
}

// WriteConfig says how is written.
type WriteConfig struct {
	Endpoint  string
	Protocols []string
	BatchSize int
	Timeout   time.Duration
}

// ReadConfig says how is asked.
type ReadConfig struct {
	Endpoint string
	Timeout  time.Duration
}

// ClientConfig says as whom the test calls.
type ClientConfig struct {
	TenantID          string
	BasicAuthUser     string
	BasicAuthPassword config.Secret
	BearerToken       config.Secret
}

// SeriesConfig says what is written and read back.
type SeriesConfig struct {
	Count          int
	MaxQueryAge    time.Duration
	WithFloats     bool
	WithHistograms bool
}

// Declare names the settings as Mimir's test has them.
func (c *Config) Declare(s *config.Set) {
	s.Bool(&c.SmokeTest, "smoke_test", false, "Write and read once, then exit: with status 0 if every answer was right.").Expert()
	s.Duration(&c.RunInterval, "run_interval", 5*time.Minute, "How often the continuous test reads back what it wrote.").Expert()
	s.Duration(&c.WriteInterval, "write_interval", 20*time.Second, "Time between two samples of a series of the continuous test.").Expert()
	s.String(&c.Write.Endpoint, "write_endpoint", "", "Address that the continuous test writes to, such as http://distributor:8080. The paths of the protocols are appended.").Expert()
	s.Strings(&c.Write.Protocols, "write_protocol", []string{protocolV1, protocolV2, protocolOTLP}, "Protocols of the continuous test, each with series of its own: prometheus (remote write 1.0), prometheus2 (2.0), otlp-http.").Expert()
	s.Int(&c.Write.BatchSize, "write_batch_size", 1000, "Series of one request.").Expert()
	s.Duration(&c.Write.Timeout, "write_timeout", 5*time.Second, "How long one write may take.").Expert()
	s.String(&c.Read.Endpoint, "read_endpoint", "", "Address that the continuous test queries, such as http://query-frontend:8080/prometheus.").Expert()
	s.Duration(&c.Read.Timeout, "read_timeout", time.Minute, "How long one query may take.").Expert()
	s.String(&c.Client.TenantID, "tenant_id", defaultTenant, "Tenant of the continuous test. Nobody else may write its metrics there. Credentials take the place of the default; any other is named beside them.").Expert()
	s.String(&c.Client.BasicAuthUser, "basic_auth_user", "", "Name for Basic authentication.").Expert()
	s.Secret(&c.Client.BasicAuthPassword, "basic_auth_password", "Password for Basic authentication.").Expert()
	s.Secret(&c.Client.BearerToken, "bearer_token", "Bearer token.").Expert()
	s.Int(&c.Series.Count, "write_read_series_test.num_series", 10000, "Series of each protocol and kind.").Expert()
	s.Duration(&c.Series.MaxQueryAge, "write_read_series_test.max_query_age", 7*24*time.Hour, "How far back the test queries.").Expert()
	s.Bool(&c.Series.WithFloats, "write_read_series_test.with_floats", true, "Whether the test has series of floats.").Expert()
	s.Bool(&c.Series.WithHistograms, "write_read_series_test.with_histograms", true, "Whether the test has series of native histograms.").Expert()
}

// Validate refuses what cannot work. Endpoints are checked by New, as only the test needs them.
func (c *Config) Validate() error {
	for _, p := range c.Write.Protocols {
		if !slices.Contains([]string{protocolV1, protocolV2, protocolOTLP}, p) {
			return config.Wrong("write_protocol", "%q is not one of %s, %s, %s", p, protocolV1, protocolV2, protocolOTLP)
		}
	}
	switch {
	case len(c.Write.Protocols) == 0:
		return config.Wrong("write_protocol", "names no protocol")
	case c.Series.Count < 1 || c.Series.Count > 1_000_000:
		return config.Wrong("write_read_series_test.num_series", "is %d; it must be from 1 to 1000000", c.Series.Count)
	case c.Write.BatchSize < 1:
		return config.Wrong("write_batch_size", "is %d; it must be 1 or more", c.Write.BatchSize)
	case c.WriteInterval < time.Second || c.WriteInterval%time.Second != 0 || c.WriteInterval > 4*time.Minute:
		return config.Wrong("write_interval", "is %s; it must be whole seconds, at most 4m", c.WriteInterval)
	case c.RunInterval <= 0:
		return config.Wrong("run_interval", "is %s; it must be more than 0", c.RunInterval)
	case c.Write.Timeout <= 0:
		return config.Wrong("write_timeout", "is %s; it must be more than 0", c.Write.Timeout)
	case c.Read.Timeout <= 0:
		return config.Wrong("read_timeout", "is %s; it must be more than 0", c.Read.Timeout)
	case c.Series.MaxQueryAge < c.WriteInterval:
		return config.Wrong("write_read_series_test.max_query_age", "is %s; it must be write_interval or more", c.Series.MaxQueryAge)
	case !c.Series.WithFloats && !c.Series.WithHistograms:
		return config.Wrong("write_read_series_test.with_floats", "and with_histograms are both off, which leaves nothing to test")
	}
	return nil
}

// endpoint checks one that the test needs.
func endpoint(name, text string) (*url.URL, error) {
	if text == "" {
		return nil, config.Wrong("tests."+name, "is empty; the target continuous-test needs it")
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, config.Wrong("tests."+name, "%q is no http or https URL", text)
	}
	return u, nil
}
