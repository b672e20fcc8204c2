package transport

import (
	"crypto/tls"
	"slices"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

// TLSPolicy says how TLS may be spoken.
type TLSPolicy struct {
	MinVersion   string   // empty: 1.2
	CipherSuites []string // none: those that Go has by default
}

// The versions by their names in settings. Older ones are broken, so that there is no name for them.
const (
	tls12 = "VersionTLS12"
	tls13 = "VersionTLS13"
)

// Declare implements config.Declarer.
func (p *TLSPolicy) Declare(s *config.Set) {
	s.String(&p.MinVersion, "tls-min-version", "", "Minimum TLS version: VersionTLS12, the default, or VersionTLS13. Older versions are never accepted.").Expert()
	s.Strings(&p.CipherSuites, "tls-cipher-suites", nil, "TLS 1.2 cipher suites to accept, by their IANA names; those of TLS 1.3 cannot be chosen. Empty: the secure ones.").Expert()
}

// Validate implements config.Validator.
func (p *TLSPolicy) Validate() error {
	if p.MinVersion != "" && p.MinVersion != tls12 && p.MinVersion != tls13 {
		return config.Wrong("tls_min_version", "is %q, not %s or %s", p.MinVersion, tls12, tls13)
	}
	_, err := p.suites()
	return err
}

// apply puts the policy into c. Errors: Invalid.
func (p *TLSPolicy) apply(c *tls.Config) error {
	c.MinVersion = tls.VersionTLS12
	switch p.MinVersion {
	case "", tls12:
	case tls13:
		c.MinVersion = tls.VersionTLS13
	default:
		return errs.New(errs.Invalid, "TLS version %q is not %s or %s", p.MinVersion, tls12, tls13)
	}
	var err error
	c.CipherSuites, err = p.suites()
	return err
}

// suites are the numbers of the cipher suites; nil if none are named.
func (p *TLSPolicy) suites() ([]uint16, error) {
	var out []uint16
	for _, name := range p.CipherSuites {
		i := slices.IndexFunc(tls.CipherSuites(), func(s *tls.CipherSuite) bool { return s.Name == name })
		if i < 0 || !slices.Contains(tls.CipherSuites()[i].SupportedVersions, tls.VersionTLS12) {
			return nil, config.Wrong("tls_cipher_suites", "has %q, which is not one of %s", name, strings.Join(suiteNames(), ", "))
		}
		out = append(out, tls.CipherSuites()[i].ID)
	}
	return out, nil
}

// suiteNames are the suites that may be named.
func suiteNames() []string {
	var out []string
	for _, s := range tls.CipherSuites() {
		if slices.Contains(s.SupportedVersions, tls.VersionTLS12) {
			out = append(out, s.Name)
		}
	}
	return out
}

// clientRows are the rows of a policy among the settings of a client.
type clientRows struct {
	p     *TLSPolicy
	flags string
}

// Declare implements config.Declarer.
func (r *clientRows) Declare(s *config.Set) {
	s.String(&r.p.MinVersion, "tls-min-version", "", "Minimum TLS version: VersionTLS12, the default, or VersionTLS13.").Named(r.flags + "tls-min-version").Expert()
	s.Strings(&r.p.CipherSuites, "tls-cipher-suites", nil, "TLS 1.2 cipher suites to offer, by their IANA names. Empty: the secure ones.").Named(r.flags + "tls-cipher-suites").Expert()
}

// Validate implements config.Validator.
func (r *clientRows) Validate() error { return r.p.Validate() }
