package identity

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/dskit/services"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.yaml.in/yaml/v3"

	"github.com/amphora-metrics/amphora/pkg/docstore"
	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
)

// maxFileBytes bounds the file of identities.
const maxFileBytes = 32 << 20

// Deps is what Identities needs beside its settings.
type Deps struct {
	Log *slog.Logger
	Reg prometheus.Registerer
	Now func() time.Time // nil: time.Now
	// Store keeps the accounts that the administration API changes; nil: there is the file only.
	Store *docstore.Store
	// Operator is the account that is made when there is none.
	Operator string
}

// Identities is the directory of all accounts, kept up to date while the service runs. Lookups may be
// made by several goroutines. Their errors: Unauthenticated for credentials that are not good,
// Unavailable while identities cannot be read.
type Identities struct {
	services.Service
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	refresh *prometheus.CounterVec

	store    *docstore.Store
	operator string
	keys     atomic.Pointer[Keyring] // nil: there are none, or they are not unwrapped yet
	hook     *hook                   // nil: keys are not wrapped
	jwks     *jwksCache

	current atomic.Pointer[directory] // nil: never read

	mfaMu   sync.Mutex        // guards mfaUsed
	mfaUsed map[string]mfaUse // without a store

	mfaSwept time.Time // when what is remembered of MFA devices was last looked through; of tick alone

	mu       sync.Mutex // guards what follows; held while identities are read or changed
	keyStamp string     // of the file of keys as read
	stamp    string     // of the file as read
	file     []*Account
	stored   map[string]known // by key of the document
	changed  bool             // stored is, since current was made of it
	asked    time.Time        // when an unknown caller made us read last
	failed   bool             // that could not be done
}

// New returns identities that were read once, if they can be: what is wrong with the file is an error,
// a store that does not answer is not. Errors: Invalid.
func New(ctx context.Context, cfg Config, deps Deps) (*Identities, error) {
	x := &Identities{cfg: cfg, log: deps.Log, now: deps.Now, store: deps.Store, operator: deps.Operator, hook: newHook(&cfg), mfaUsed: map[string]mfaUse{}}
	if x.now == nil {
		x.now = time.Now
	}
	x.jwks = &jwksCache{client: &http.Client{Timeout: jwksTimeout}, now: x.now, sets: map[string]jwkSet{}}
	x.refresh = promauto.With(deps.Reg).NewCounterVec(prometheus.CounterOpts{
		Name: "amphora_identity_refreshes_total",
		Help: "Readings of identities by result. While they fail, those read before stay in use.",
	}, []string{"result"})
	if err := x.update(ctx); err != nil {
		if errs.KindOf(err) == errs.Invalid {
			return nil, err
		}
		x.log.Warn("identities cannot be read yet, callers get 503", "err", err)
	}
	x.Service = services.NewTimerService(cfg.Refresh, nil, x.tick, nil)
	return x, nil
}

// tick keeps what was read before if there is something wrong now.
func (x *Identities) tick(ctx context.Context) error {
	if err := x.update(ctx); err != nil {
		if ctx.Err() == nil {
			x.log.Warn("identities not refreshed, those read before stay in use", "err", err)
		}
		return nil
	}
	if err := x.forgetMFA(ctx); err != nil && ctx.Err() == nil {
		x.log.Warn("what is remembered of deleted MFA devices is not deleted yet", "err", err)
	}
	return nil
}

// askInterval is how often somebody who is not known makes us look whether he has become known.
const askInterval = time.Second

// askTimeout bounds how long that may take.
const askTimeout = 5 * time.Second

// lookAgain reads identities again for a caller who is not known, which keys just made somewhere else
// need. Errors: Unavailable if that cannot be done: then who is not known may be known elsewhere.
func (x *Identities) lookAgain(ctx context.Context) (*directory, error) {
	if x.store != nil {
		x.mu.Lock()
		now := x.now()
		due, failed := now.Sub(x.asked) >= askInterval, x.failed
		if due {
			x.asked = now
			// Others wait for the answer, so that it does not matter whether this caller does.
			asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
			err := x.reload(asking)
			cancel()
			if failed = err != nil; failed {
				x.log.Warn("identities not refreshed for an unknown caller, who gets 503", "err", err)
			}
			x.failed = failed
		}
		x.mu.Unlock()
		if failed { // also for who asks soon after
			return nil, errs.New(errs.Unavailable, "identities cannot be read at the moment")
		}
	}
	return x.look()
}

// update reads what changed.
func (x *Identities) update(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.refreshKeys(ctx); err != nil {
		if x.keys.Load() == nil {
			x.refresh.WithLabelValues("failure").Inc()
			return err
		}
		x.log.Warn("operator's keys not read again, those read before stay in use", "err", err)
	}
	return x.reload(ctx)
}

// reload needs x.mu.
func (x *Identities) reload(ctx context.Context) (err error) {
	defer func() {
		result := "success"
		if err != nil {
			result = "failure"
		}
		x.refresh.WithLabelValues(result).Inc()
	}()
	stamp := fileStamp(x.cfg.File)
	file := x.file
	if x.current.Load() == nil || stamp != x.stamp {
		if file, err = readFile(x.cfg.File); err != nil {
			return err
		}
	}
	if err := x.readStore(ctx); err != nil {
		return err
	}
	if len(file)+len(x.stored) == 0 {
		if err := x.bootstrap(ctx); err != nil {
			return err
		}
		if err := x.readStore(ctx); err != nil {
			return err
		}
	}
	if x.current.Load() != nil && stamp == x.stamp && !x.changed {
		return nil
	}
	d, err := newDirectory(merged(file, x.stored))
	if err != nil {
		x.stored = nil // it is read again until it is right
		return err
	}
	x.file, x.stamp, x.changed = file, stamp, false
	x.current.Store(d)
	x.log.Info("identities read", "accounts", len(d.accounts), "access_keys", len(d.keys), "tokens", len(d.tokens), "roles", len(d.roles))
	return nil
}

// fileStamp is what a file looks like without reading it.
func fileStamp(name string) string {
	if name == "" {
		return ""
	}
	info, err := os.Stat(name)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}

// readFile reads the accounts of a file; no name is no accounts. Errors: Invalid.
func readFile(name string) ([]*Account, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, errs.New(errs.Invalid, "open the file of identities: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, errs.New(errs.Invalid, "read the file of identities: %w", err)
	}
	if len(data) > maxFileBytes {
		return nil, errs.New(errs.Invalid, "file of identities is larger than %d bytes", maxFileBytes)
	}
	return parseAccounts(data)
}

// parseAccounts reads YAML strictly. Errors: Invalid; they do not quote values, which may be secrets.
func parseAccounts(data []byte) ([]*Account, error) {
	var file struct {
		Accounts []*Account `yaml:"accounts"`
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, errs.New(errs.Invalid, "file of identities: %s", unquoted(err))
	}
	for i, a := range file.Accounts {
		if a == nil {
			return nil, errs.New(errs.Invalid, "file of identities: account %d is empty", i+1)
		}
	}
	return file.Accounts, nil
}

// unquoted cuts the values out of the text of a YAML error.
func unquoted(err error) string {
	text := err.Error()
	for {
		before, rest, ok := strings.Cut(text, "`")
		_, after, closed := strings.Cut(rest, "`")
		if !ok || !closed {
			return text
		}
		text = before + "a value" + after
	}
}

// look returns the directory. Errors: Unavailable.
func (x *Identities) look() (*directory, error) {
	d := x.current.Load()
	if d == nil {
		return nil, errs.New(errs.Unavailable, "identities cannot be read at the moment")
	}
	return d, nil
}

// Key is what an access key is good for.
type Key struct {
	Secret    string
	Principal *iam.Principal
}

// errUnknown is the answer to everything that is not known, so that answers do not tell which.
func errUnknown() error {
	return errs.New(errs.Unauthenticated, "the security token included in the request is invalid")
}

// Key looks an access key up. sessionToken belongs to temporary ones.
func (x *Identities) Key(ctx context.Context, id, sessionToken string) (Key, error) {
	d, err := x.look()
	if err != nil {
		return Key{}, err
	}
	if strings.HasPrefix(id, sessionPrefix) {
		return x.sessionKey(d, id, sessionToken)
	}
	e, ok := d.keys[id]
	if !ok {
		if d, err = x.lookAgain(ctx); err != nil {
			return Key{}, err
		}
		e, ok = d.keys[id]
	}
	if !ok || e.inactive || sessionToken != "" {
		return Key{}, errUnknown()
	}
	return Key{e.secret.Reveal(), e.principal}, nil
}

// Basic looks up an access key with its secret.
func (x *Identities) Basic(ctx context.Context, id, secret string) (*iam.Principal, error) {
	k, err := x.Key(ctx, id, "")
	if err != nil && errs.KindOf(err) != errs.Unauthenticated {
		return nil, err
	}
	// Hashes are compared, so that neither the length nor the beginning of a secret shows in the time.
	if same := subtle.ConstantTimeCompare([]byte(digest(secret)), []byte(digest(k.Secret))); err != nil || same != 1 {
		return nil, errUnknown()
	}
	return k.Principal, nil
}

// Token looks up a bearer token, or verifies one of an OIDC provider.
func (x *Identities) Token(ctx context.Context, token string) (*iam.Principal, error) {
	d, err := x.look()
	if err != nil {
		return nil, err
	}
	e, ok := d.tokens[digest(token)] // the time of a look-up by hash tells nothing about the token
	if !ok && isJWT(token) && len(d.providers) > 0 {
		return x.bearerJWT(ctx, d, token)
	}
	if !ok {
		if d, err = x.lookAgain(ctx); err != nil {
			return nil, err
		}
		e, ok = d.tokens[digest(token)]
	}
	if !ok || e.inactive || !e.expires.IsZero() && x.now().After(e.expires) {
		return nil, errUnknown()
	}
	return e.principal, nil
}

// Certificate looks up the user of a verified client certificate by its names.
func (x *Identities) Certificate(_ context.Context, names []string) (*iam.Principal, error) {
	d, err := x.look()
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if p := d.certs[n]; p != nil {
			return p, nil
		}
	}
	return nil, errUnknown()
}

// sessionPrefix begins the ids of temporary access keys.
const sessionPrefix = "ASIA"
