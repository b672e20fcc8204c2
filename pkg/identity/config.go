package identity

import (
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
)

// Config is the settings of identities; app mounts it as auth.
type Config struct {
	File     string
	Refresh  time.Duration
	Key      config.Secret
	KeyFile  string
	RootFile string
	Hook     HookConfig
}

// Declare implements config.Declarer.
func (c *Config) Declare(s *config.Set) {
	s.String(&c.File, "identity-file", "", "YAML file with accounts, users, roles, access keys, tokens and policies. It is read again when it changes.")
	s.Secret(&c.Key, "key", "Key that identities, session tokens and audit records are protected with: 32 bytes in base64 or hexadecimal digits. All gateways need the same. Several, one a line, while keys are changed: the first is used.")
	s.String(&c.KeyFile, "key-file", "./data/operator.key", "File with that key, if auth.key is not set. It is created if it does not exist, which suits a single process only, and reloaded when it changes.")
	c.Hook.declare(s)
	s.String(&c.RootFile, "root-credential-file", "./data/root-credential", "Where the root credential of the operator's account is written when there is no account yet, at the first start. Empty: none is made.").Expert()
	s.Duration(&c.Refresh, "identity-refresh", 10*time.Second, "How often identities are checked for changes; a revoked key may work for that long.").Expert()
}

// Validate implements config.Validator.
func (c *Config) Validate() error {
	if c.Refresh < time.Second {
		return config.Wrong("identity_refresh", "is %s, at least 1s is needed", c.Refresh)
	}
	return c.Hook.validate()
}
