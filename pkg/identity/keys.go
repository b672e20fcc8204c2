package identity

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// wrappedPrefix begins the line of a key that a key management service has wrapped.
const wrappedPrefix = "wrapped:"

// maxKeyFileBytes bounds the file of the operator's keys.
const maxKeyFileBytes = 1 << 20

// refreshKeys reads the operator's keys if their file has changed, and unwraps them: what was unwrapped stays in the
// memory of the process, so that the service is asked once. If that fails, those read before stay in use. It
// needs x.mu. Errors: Invalid, Unavailable while the key management service does not answer.
func (x *Identities) refreshKeys(ctx context.Context) error {
	if x.cfg.Key == "" && x.cfg.KeyFile == "" {
		if x.store != nil {
			return errs.New(errs.Invalid, "stored identities need the operator's key: set auth.key_file")
		}
		return nil
	}
	stamp := "set"
	if x.cfg.Key == "" {
		stamp = fileStamp(x.cfg.KeyFile)
	}
	if x.keys.Load() != nil && stamp == x.keyStamp {
		return nil
	}
	text := x.cfg.Key.Reveal()
	if text == "" {
		var err error
		if text, err = x.keyFile(ctx); err != nil {
			return err
		}
		stamp = fileStamp(x.cfg.KeyFile) // which may have been made
	}
	k, err := x.parseKeys(ctx, text)
	if err != nil {
		return err
	}
	if x.keys.Swap(k) != nil {
		x.log.Info("operator's keys read again", "keys", len(k.keys))
	}
	x.keyStamp = stamp
	return nil
}

// keyFile reads the file of the keys. If it does not exist it is made, with a new key that only its owner can
// read, or that nobody can without the key management service.
func (x *Identities) keyFile(ctx context.Context) (string, error) {
	name := x.cfg.KeyFile
	data, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		key := make([]byte, operatorKeyBytes)
		_, _ = rand.Read(key) // it never fails
		line := base64.StdEncoding.EncodeToString(key) + "\n"
		if x.hook != nil {
			wrapped, err := x.hook.ask(ctx, "wrap", key)
			if err != nil {
				return "", err
			}
			line = wrappedPrefix + base64.StdEncoding.EncodeToString(wrapped) + "\n"
		}
		data = []byte(line)
		if err = os.MkdirAll(filepath.Dir(name), 0o700); err == nil {
			err = writeNew(name, data)
		}
	}
	if err == nil && len(data) > maxKeyFileBytes {
		return "", errs.New(errs.Invalid, "file of the operator's key is larger than %d bytes", maxKeyFileBytes)
	}
	if err != nil {
		return "", errs.New(errs.Invalid, "read the file of the operator's key: %w", err)
	}
	return string(data), nil
}

// parseKeys is ParseKeyring for lines of which some are wrapped.
func (x *Identities) parseKeys(ctx context.Context, text string) (*Keyring, error) {
	var open strings.Builder
	for line := range strings.Lines(text) {
		wrapped, is := strings.CutPrefix(strings.TrimSpace(line), wrappedPrefix)
		if !is {
			open.WriteString(strings.TrimSpace(line) + "\n")
			continue
		}
		if x.hook == nil {
			return nil, errs.New(errs.Invalid, "operator's key is wrapped: set auth.key_hook_command or auth.key_hook_url")
		}
		data, err := base64.StdEncoding.DecodeString(wrapped)
		if err != nil {
			return nil, errs.New(errs.Invalid, "wrapped key of the operator is not base64")
		}
		key, err := x.hook.ask(ctx, "unwrap", data)
		if err != nil {
			return nil, err
		}
		if len(key) != operatorKeyBytes {
			return nil, errs.New(errs.Invalid, "key management service unwrapped a key of %d bytes, the operator's has %d", len(key), operatorKeyBytes)
		}
		open.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	}
	return ParseKeyring(open.String())
}

// SignAudit authenticates the digest of a batch of audit records with the key that seals now; without the
// operator's key there is nothing to do it with.
func (x *Identities) SignAudit(digest string) []byte {
	k := x.keys.Load()
	if k == nil {
		return nil
	}
	return k.mac(0, auditPurpose, digest)
}

// VerifyAudit says whether one of the operator's keys signed the digest.
func (x *Identities) VerifyAudit(digest string, signature []byte) bool {
	k := x.keys.Load()
	if k == nil {
		return false
	}
	good := false
	for i := range k.keys {
		good = hmac.Equal(k.mac(i, auditPurpose, digest), signature) || good
	}
	return good
}

// SealCertificate encrypts text, a certificate of listeners with its key, with the operator's key. The context
// must be the same to open it. Errors: Unavailable before the key is known.
func (x *Identities) SealCertificate(context string, text []byte) ([]byte, error) {
	k := x.keys.Load()
	if k == nil {
		return nil, errNoKeys()
	}
	return k.seal(certificatePurpose, context, text), nil
}

// OpenCertificate undoes SealCertificate. Errors: Unavailable, Invalid.
func (x *Identities) OpenCertificate(context string, sealed []byte) ([]byte, error) {
	k := x.keys.Load()
	if k == nil {
		return nil, errNoKeys()
	}
	return k.open(certificatePurpose, context, sealed)
}
