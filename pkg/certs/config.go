package certs

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"strings"
	"time"

	"golang.org/x/crypto/acme"

	"github.com/amphora-metrics/amphora/pkg/config"
)

const (
	// mostHosts bounds the certificates of a process, and with them the values of a metric's label.
	mostHosts = 100
	// mostNameBytes is how long a DNS name can be.
	mostNameBytes = 253
)

// Config is the settings of certificates that a CA issues; app mounts it as server.acme.
type Config struct {
	Hosts       []string
	Directory   string
	CAFile      string
	Email       string
	AcceptTerms bool
	RenewBefore time.Duration
	ExternalID  string
	ExternalKey config.Secret
}

// Declare implements config.Declarer.
func (c *Config) Declare(s *config.Set) {
	s.Strings(&c.Hosts, "hosts", nil, "DNS names for which certificates are obtained from an ACME CA and renewed, for the HTTP and OTLP listeners. Clients that ask for other names get the certificate of server.http_tls_config, if there is one. Empty: none.")
	s.Bool(&c.AcceptTerms, "accept-terms-of-service", false, "Agree to the terms of service of the CA, without which it issues nothing.")
	s.String(&c.Email, "email", "", "E-mail address for the CA's notices about expiring certificates.")
	s.String(&c.Directory, "directory-url", acme.LetsEncryptURL, "URL of the CA's ACME directory.").Expert()
	s.String(&c.CAFile, "ca-file", "", "File with CA certificates to verify the server of a private CA. Empty: those of the system.").Expert()
	s.Duration(&c.RenewBefore, "renew-before", 30*24*time.Hour, "How long before expiry a certificate is renewed, but not before two thirds of its lifetime have passed.").Expert()
	s.String(&c.ExternalID, "external-account-id", "", "Id of the account at the CA to bind to, for CAs that require external account binding.").Expert()
	s.Secret(&c.ExternalKey, "external-account-key", "Key of that account, in URL-safe base64.").Expert()
}

// Enabled says whether certificates are to be got.
func (c *Config) Enabled() bool { return len(c.Hosts) > 0 }

// Validate implements config.Validator.
func (c *Config) Validate() error {
	if !c.Enabled() {
		return nil
	}
	if !c.AcceptTerms {
		return config.Wrong("accept_terms_of_service", "must be true: the CA issues certificates only to who agrees to its terms")
	}
	if len(c.Hosts) > mostHosts {
		return config.Wrong("hosts", "has %d names, at most %d are allowed", len(c.Hosts), mostHosts)
	}
	for _, h := range c.Hosts {
		if !isHost(h) {
			return config.Wrong("hosts", "has %q, which is no DNS name in lower case; wildcards and addresses cannot be proven to a CA by TLS-ALPN-01", h)
		}
	}
	if u, err := url.Parse(c.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		return config.Wrong("directory_url", "is %q, which is no URL with https", c.Directory)
	}
	if c.RenewBefore <= 0 {
		return config.Wrong("renew_before", "is %s, it must be more than 0", c.RenewBefore)
	}
	if (c.ExternalID == "") != (c.ExternalKey == "") {
		return config.Wrong("external_account_key", "and external_account_id are needed both or none")
	}
	if _, err := c.externalKey(); err != nil {
		return config.Wrong("external_account_key", "is not URL-safe base64")
	}
	return nil
}

func (c *Config) externalKey() ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(c.ExternalKey.Reveal(), "="))
}

// isHost says whether name is a DNS name that is not an address.
func isHost(name string) bool {
	if len(name) > mostNameBytes {
		return false
	}
	last := name[strings.LastIndexByte(name, '.')+1:]
	if strings.Trim(last, "0123456789") == "" { // an address, or nothing
		return false
	}
	label := regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	for part := range strings.SplitSeq(name, ".") {
		if !label.MatchString(part) {
			return false
		}
	}
	return true
}
