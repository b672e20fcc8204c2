package transport

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// TestOnlyProxiesSayWhereRequestsComeFrom: the log names the peer, and what headers say if the peer is a
// proxy that is trusted.
func TestOnlyProxiesSayWhereRequestsComeFrom(t *testing.T) {
	const proxy, stranger = "10.1.2.3:999", "203.0.113.9:999"
	chain := http.Header{"X-Forwarded-For": {"198.51.100.1, 198.51.100.2"}}
	for name, tc := range map[string]struct {
		cfg    SourceConfig
		peer   string
		header http.Header
		want   string
	}{
		"no header":            {SourceConfig{}, proxy, nil, "10.1.2.3"},
		"forged":               {SourceConfig{}, stranger, chain, "203.0.113.9"},
		"forwarded for":        {SourceConfig{}, proxy, chain, "198.51.100.1, 10.1.2.3"},
		"all of them":          {SourceConfig{Full: true}, proxy, chain, "198.51.100.1, 198.51.100.2, 10.1.2.3"},
		"real ip":              {SourceConfig{}, proxy, http.Header{"X-Real-Ip": {"198.51.100.7"}}, "198.51.100.7, 10.1.2.3"},
		"RFC 7239":             {SourceConfig{}, proxy, http.Header{"Forwarded": {"for=198.51.100.8;proto=https"}}, "198.51.100.8, 10.1.2.3"},
		"own header":           {SourceConfig{Header: "X-Who", Regex: `ip=(\S+)`}, proxy, http.Header{"X-Who": {"a ip=198.51.100.9 b"}}, "198.51.100.9, 10.1.2.3"},
		"own header, forged":   {SourceConfig{Header: "X-Who", Regex: `ip=(\S+)`}, stranger, http.Header{"X-Who": {"a ip=198.51.100.9 b"}}, "203.0.113.9"},
		"own header, not here": {SourceConfig{Header: "X-Who", Regex: `ip=(\S+)`}, proxy, chain, "10.1.2.3"},
		"long":                 {SourceConfig{Full: true}, proxy, http.Header{"X-Forwarded-For": {strings.Repeat("1.1.1.1,", 1000)}}, strings.Repeat("1.1.1.1, ", 1000)[:mostSourceBytes]},
	} {
		tc.cfg.Enabled = true
		s, err := newSources(&tc.cfg, []string{"10.0.0.0/8"})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = tc.peer
		for k, vs := range tc.header {
			r.Header[k] = vs
		}
		got := ""
		s.note(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = SourceOf(r.Context()) })).ServeHTTP(nil, r)
		if got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	for _, flags := range [][]string{{"-server.log-source-ips-header=X-Who"}, {"-server.log-source-ips-regex=("}, {"-server.log-source-ips-header=X-Who", "-server.log-source-ips-regex=("}} {
		set := config.NewSet()
		set.Mount("server", new(Config))
		if _, err := config.Load(set, flags, func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), "log_source_ips") {
			t.Errorf("%v: %v, want an error that names the setting", flags, err)
		}
	}
	if s, err := newSources(&SourceConfig{}, nil); s != nil || err != nil {
		t.Errorf("off: %v, %v", s, err)
	}
}
