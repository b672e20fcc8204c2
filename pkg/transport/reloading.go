package transport

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// tlsCheckEvery is how old the knowledge of certificate files may be at a handshake.
const tlsCheckEvery = time.Second

// reloading keeps a TLS configuration equal to its files.
type reloading struct {
	files   [3]string // certificate, key and authorities; empty: there is none
	load    func() (*tls.Config, error)
	reloads *prometheus.CounterVec
	log     *slog.Logger

	mu      sync.Mutex // guards what follows
	current *tls.Config
	stamps  [3]stamp
	checked time.Time
}

// stamp is what a file looks like without reading it.
type stamp struct {
	modified time.Time
	size     int64
}

// begin loads the files for the first time. Errors: Invalid.
func (r *reloading) begin() (err error) {
	r.stamps, r.checked = r.look(), time.Now()
	r.current, err = r.load()
	return err
}

func (r *reloading) look() (out [3]stamp) {
	for i, name := range r.files {
		if info, err := os.Stat(name); err == nil {
			out[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return out
}

// latest returns the configuration of the files as they are, or as they last were valid.
func (r *reloading) latest() *tls.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.checked) < tlsCheckEvery {
		return r.current
	}
	r.checked = time.Now()
	stamps := r.look()
	if stamps == r.stamps {
		return r.current
	}
	next, err := r.load()
	if err != nil {
		// The stamps stay, so that the next handshake after a second tries again.
		r.reloads.WithLabelValues("failure").Inc()
		r.log.Warn("changed certificate files are not valid, the ones before stay in use", "cert", r.files[0], "ca", r.files[2], "err", err)
		return r.current
	}
	r.reloads.WithLabelValues("success").Inc()
	r.log.Info("certificate files reloaded", "cert", r.files[0], "ca", r.files[2])
	r.current, r.stamps = next, stamps
	return next
}

// readPool reads the authorities in a file. Errors: Invalid.
func readPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, fmt.Errorf("read CA file: %w", err))
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errs.New(errs.Invalid, "CA file %q holds no certificate", path)
	}
	return pool, nil
}
