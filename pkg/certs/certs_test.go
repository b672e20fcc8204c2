package certs

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/amphora-metrics/amphora/pkg/bucket"
	"github.com/amphora-metrics/amphora/pkg/certs/acmetest"
	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	ours   = "metrics.example.com"
	others = "other.example.com"
)

// replica is one of the processes that show certificates.
type replica struct {
	*Manager
	addr string
	late atomic.Int64 // how far its clock is ahead
}

func documents(t *testing.T) *docstore.Store {
	t.Helper()
	b, err := bucket.NewConditionalFilesystem(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return docstore.New(b, docstore.Prefix, prometheus.NewRegistry())
}

// start returns a replica that listens and gets certificates only when it is told to.
func start(t *testing.T, ca *acmetest.CA, store *docstore.Store, sealer Sealer) *replica {
	t.Helper()
	var cfg Config
	cfg.Declare(config.NewSet())
	cfg.Hosts, cfg.AcceptTerms, cfg.Directory, cfg.CAFile, cfg.Email = []string{ours}, true, ca.URL(), ca.File, "ops@example.com"
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	m, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler), Reg: prometheus.NewRegistry(), Store: store, Sealer: sealer})
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{Manager: m}
	m.spread, m.now = 0, func() time.Time { return time.Now().Add(time.Duration(r.late.Load())) }
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Equal(h.SupportedProtos, []string{"acme-tls/1"}) {
			c, err := m.Challenge(h.Context(), h.ServerName)
			if err != nil {
				return nil, err
			}
			return &tls.Config{NextProtos: []string{"acme-tls/1"}, Certificates: []tls.Certificate{*c}}, nil
		}
		c, _ := m.Certificate(h.ServerName)
		if c == nil {
			return nil, errors.New("no certificate")
		}
		return &tls.Config{Certificates: []tls.Certificate{*c}}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _, _ = io.Copy(io.Discard, c); _ = c.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait(); m.ca.CloseIdleConnections() })
	return r
}

func (r *replica) tend(t *testing.T) time.Duration {
	t.Helper()
	return r.Manager.tend(t.Context(), r.order[0])
}

// shows returns the serial number of the certificate that a client gets for name, "" if it accepts none.
func (r *replica) shows(ca *acmetest.CA, name string) string {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 30 * time.Second}, "tcp", r.addr, &tls.Config{RootCAs: ca.Roots, ServerName: name})
	if err != nil {
		return ""
	}
	defer func() { _ = c.Close() }()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func issued(t *testing.T, ca *acmetest.CA, want int) {
	t.Helper()
	if names, got := ca.Orders(); got != want {
		t.Errorf("%d certificates were issued, want %d; orders for %v", got, want, names)
	}
}

func TestACertificateIsGotShownAndTakenFromTheStoreAfterARestart(t *testing.T) {
	ca, store := acmetest.New(t), documents(t)
	r := start(t, ca, store, nil)
	ca.At(ours, r.addr)
	if got := r.shows(ca, ours); got != "" {
		t.Errorf("certificate %s is shown before there is one", got)
	}
	if rest := r.tend(t); rest < 50*24*time.Hour {
		t.Errorf("a certificate of 90 days is looked after again in %s", rest)
	}
	first := r.shows(ca, ours)
	if first == "" {
		t.Fatal("no certificate is shown that a client takes")
	}
	if got := r.shows(ca, strings.ToUpper(ours)); got != first {
		t.Errorf("in capitals the name gets %q", got)
	}
	c, _ := r.Certificate(ours)
	if got := testutil.ToFloat64(r.m.expiry.WithLabelValues(ours)); got != float64(c.Leaf.NotAfter.Unix()) {
		t.Errorf("the metric says %v", got)
	}
	// Another process begins while the CA is away.
	ca.Down(true)
	again := start(t, ca, store, nil)
	if err := services.StartAndAwaitRunning(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	if got := again.shows(ca, ours); got != first {
		t.Errorf("after a restart %q is shown, want %q", got, first)
	}
	if err := services.StopAndAwaitTerminated(context.Background(), again); err != nil {
		t.Fatal(err)
	}
	issued(t, ca, 1)
}

func TestACertificateIsRenewedBeforeItExpires(t *testing.T) {
	ca := acmetest.New(t)
	r := start(t, ca, documents(t), nil)
	ca.At(ours, r.addr)
	ca.Life(-time.Minute, time.Hour)
	rest := r.tend(t)
	if rest < 30*time.Minute || rest > time.Hour*2/3 {
		t.Errorf("a certificate of an hour is looked after again in %s", rest)
	}
	first := r.shows(ca, ours)
	r.late.Store(int64(rest - time.Minute))
	if r.tend(t); r.shows(ca, ours) != first {
		t.Error("it is renewed too early")
	}
	r.late.Store(int64(rest + time.Minute))
	if _, valid := r.Certificate(ours); !valid {
		t.Error("it has expired before it is due")
	}
	ca.Life(-time.Minute, 48*time.Hour)
	r.tend(t)
	if got := r.shows(ca, ours); got == first || got == "" {
		t.Errorf("after it was due %q is shown, before %q", got, first)
	}
	issued(t, ca, 2)
}

func TestACertificateThatIsDueFromTheStartIsNotOrderedAgainAndAgain(t *testing.T) {
	ca := acmetest.New(t)
	r := start(t, ca, documents(t), nil)
	ca.At(ours, r.addr)
	ca.Life(-time.Hour, 6*time.Minute)
	for range 5 {
		if rest := r.tend(t); rest < time.Minute {
			t.Errorf("looked after again in %s", rest)
		}
	}
	issued(t, ca, 1)
	r.late.Store(int64(3 * time.Minute))
	r.tend(t)
	issued(t, ca, 2)
}

func TestWhenTheCAIsAwayAttemptsAreFewAndWhatThereIsStays(t *testing.T) {
	ca, store := acmetest.New(t), documents(t)
	r, other := start(t, ca, store, nil), start(t, ca, store, nil)
	ca.At(ours, r.addr)
	ca.Life(-time.Minute, time.Hour)
	r.tend(t)
	first := r.shows(ca, ours)
	ca.Down(true)
	before := ca.Requests()
	attempts := 0
	for minute := 50; minute < 50+120; minute++ { // it expires at 60
		r.late.Store(int64(time.Duration(minute) * time.Minute))
		other.late.Store(r.late.Load())
		failures := testutil.ToFloat64(r.m.orders.WithLabelValues("failure"))
		r.tend(t)
		other.tend(t)
		if testutil.ToFloat64(r.m.orders.WithLabelValues("failure")) > failures {
			attempts++
		}
	}
	if attempts < 3 || attempts > 6 || testutil.ToFloat64(other.m.orders.WithLabelValues("failure")) > 1 {
		t.Errorf("%d attempts in two hours, want 3 to 6, by one of the processes", attempts)
	}
	if got := ca.Requests() - before; got > 10*attempts {
		t.Errorf("%d requests for %d attempts", got, attempts)
	}
	c, valid := r.Certificate(ours)
	if c == nil || c.Leaf.SerialNumber.String() != first || valid {
		t.Errorf("after it expired there is %v, valid %t", c, valid)
	}
	if got := testutil.ToFloat64(r.m.expiry.WithLabelValues(ours)); got > float64(r.now().Unix()) {
		t.Error("the metric does not say that it has expired")
	}
	ca.Down(false)
	r.late.Add(int64(lastRetry))
	ca.Life(-time.Minute, 48*time.Hour)
	r.tend(t)
	if _, valid := r.Certificate(ours); !valid {
		t.Error("it is not renewed once the CA is back")
	}
}

func TestNoHandshakeMakesACallToTheCA(t *testing.T) {
	ca := acmetest.New(t)
	r := start(t, ca, documents(t), nil)
	ca.At(others, r.addr)
	for _, name := range []string{others, ours, "localhost", "x." + ours} {
		if got := r.shows(ca, name); got != "" {
			t.Errorf("%s gets certificate %s", name, got)
		}
		if c, err := r.Challenge(t.Context(), name); err == nil {
			t.Errorf("%s has the challenge %v", name, c)
		}
	}
	if _, err := r.Challenge(t.Context(), ""); errs.KindOf(err) != errs.NotFound {
		t.Errorf("without a name: %v", err)
	}
	if got := ca.Requests(); got != 0 {
		t.Errorf("%d requests to the CA", got)
	}
}

func TestOneOfSeveralProcessesAsksTheCAAndAllAnswerIt(t *testing.T) {
	ca, store := acmetest.New(t), documents(t)
	var rs []*replica
	var at []string
	for range 4 {
		rs = append(rs, start(t, ca, store, nil))
		at = append(at, rs[len(rs)-1].addr)
	}
	ca.At(ours, at...) // its checks reach every one of them
	var wg sync.WaitGroup
	for _, r := range rs {
		wg.Go(func() { r.Manager.tend(t.Context(), r.order[0]) })
	}
	wg.Wait()
	for _, r := range rs {
		r.tend(t)
	}
	first := rs[0].shows(ca, ours)
	for i, r := range rs {
		if got := r.shows(ca, ours); got == "" || got != first {
			t.Errorf("process %d shows %q, the first %q", i, got, first)
		}
	}
	issued(t, ca, 1)
	if names, _ := ca.Orders(); len(names) != 1 {
		t.Errorf("orders for %v", names)
	}
}

func TestTheClaimOfAProcessThatDiedEnds(t *testing.T) {
	ca, store := acmetest.New(t), documents(t)
	dead, r := start(t, ca, store, nil), start(t, ca, store, nil)
	ca.At(ours, r.addr)
	if c, _, err := dead.claim(t.Context(), dead.order[0]); c == nil || err != nil {
		t.Fatal(err)
	}
	if rest := r.tend(t); rest > othersTurn {
		t.Errorf("looked again in %s", rest)
	}
	issued(t, ca, 0)
	r.late.Store(int64(claimLasts + time.Second))
	r.tend(t)
	issued(t, ca, 1)
}

// boxed seals by turning bytes around, with the context before them.
type boxed struct{}

func (boxed) SealCertificate(context string, text []byte) ([]byte, error) {
	out := slices.Clone(text)
	slices.Reverse(out)
	return append([]byte(context+"\n"), out...), nil
}

func (boxed) OpenCertificate(context string, sealed []byte) ([]byte, error) {
	rest, ok := strings.CutPrefix(string(sealed), context+"\n")
	if !ok {
		return nil, errs.New(errs.Invalid, "belongs elsewhere")
	}
	out := []byte(rest)
	slices.Reverse(out)
	return out, nil
}

func TestWhatIsStoredIsSealedAndNothingElseIsBelieved(t *testing.T) {
	ca, store := acmetest.New(t), documents(t)
	r := start(t, ca, store, boxed{})
	ca.At(ours, r.addr)
	r.tend(t)
	all, err := store.List(t.Context(), "certificates/")
	if err != nil || len(all) != 4 {
		t.Fatalf("%d documents, %v", len(all), err)
	}
	for _, e := range all {
		d, err := store.Get(t.Context(), e.Key)
		if err != nil {
			t.Fatal(err)
		}
		var stored envelope
		if err := json.Unmarshal(d.Data, &stored); err != nil || strings.Contains(string(stored.Data), "PRIVATE KEY-----") {
			t.Errorf("%s holds %.200s, %v", e.Key, stored.Data, err)
		}
	}
	// Who can write to the store, but has no key of the operator, puts a certificate of his own.
	key := r.dir + r.order[0].key("certificate")
	c, _ := r.Certificate(ours)
	bad := start(t, ca, store, nil)
	if err := bad.write(t.Context(), r.order[0].key("certificate"), c); err != nil {
		t.Fatal(err)
	}
	fresh := start(t, ca, store, boxed{})
	if fresh.load(t.Context(), fresh.order[0]); fresh.order[0].held.Load() != nil {
		t.Error("what nobody sealed is shown")
	}
	for _, text := range []string{"{", `{"sealed":true,"data":"AAAA"}`, `{"sealed":true}`} {
		if _, err := store.Overwrite(t.Context(), key, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if fresh.load(t.Context(), fresh.order[0]); fresh.order[0].held.Load() != nil {
			t.Errorf("%s is a certificate", text)
		}
	}
}

func TestOpenIssuanceAndNamesThatCannotBeProvenAreRefused(t *testing.T) {
	good := Config{Hosts: []string{ours}, AcceptTerms: true, Directory: "https://ca.example.com/directory", RenewBefore: time.Hour}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	if err := (&Config{}).Validate(); err != nil {
		t.Errorf("without names: %v", err)
	}
	for name, change := range map[string]func(*Config){
		"terms": func(c *Config) { c.AcceptTerms = false }, "wildcard": func(c *Config) { c.Hosts = []string{"*.example.com"} },
		"address": func(c *Config) { c.Hosts = []string{"10.0.0.1"} }, "address of six": func(c *Config) { c.Hosts = []string{"::1"} },
		"empty": func(c *Config) { c.Hosts = []string{""} }, "path": func(c *Config) { c.Hosts = []string{"../x"} }, "capitals": func(c *Config) { c.Hosts = []string{"Metrics.example.com"} },
		"long": func(c *Config) { c.Hosts = []string{strings.Repeat("a.", 200) + "com"} }, "many": func(c *Config) { c.Hosts = slices.Repeat(c.Hosts, mostHosts+1) },
		"plain": func(c *Config) { c.Directory = "http://ca.example.com" }, "never": func(c *Config) { c.RenewBefore = 0 },
		"half an account": func(c *Config) { c.ExternalID = "x" }, "no key": func(c *Config) { c.ExternalID, c.ExternalKey = "x", "%" },
	} {
		c := good
		c.Hosts = slices.Clone(good.Hosts)
		if change(&c); c.Validate() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
