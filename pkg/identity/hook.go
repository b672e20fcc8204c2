package identity

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"time"

	"github.com/amphora-metrics/amphora/pkg/config"
	"github.com/amphora-metrics/amphora/pkg/errs"
)

const (
	// hookTimeout bounds one question to the key management service.
	hookTimeout = 20 * time.Second
	// maxHookBytes bounds its answer.
	maxHookBytes = 64 << 10
	// hookContext is told with every question, for services that bind what they wrap to what it is for.
	hookContext = "amphora operator key"
)

// hook asks a key management service, by a program or by HTTP, to wrap and unwrap the operator's keys. The
// service keeps its own key to itself, so that who has the file of the operator's keys has nothing.
type hook struct {
	command []string
	url     string
	token   config.Secret
	client  *http.Client
}

// What is asked and answered is JSON.
type (
	hookQuestion struct {
		Operation string `json:"operation"` // wrap or unwrap
		Context   string `json:"context"`
		Data      string `json:"data"` // base64: a key, or what wrap answered
	}
	hookAnswer struct {
		Data string `json:"data"` // base64
	}
)

// newHook returns nil if none is configured.
func newHook(c *Config) *hook {
	if len(c.Hook.Command) == 0 && c.Hook.URL == "" {
		return nil
	}
	return &hook{command: c.Hook.Command, url: c.Hook.URL, token: c.Hook.Token, client: &http.Client{
		Timeout: hookTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("a key management service must not redirect")
		},
	}}
}

// ask puts one question. Errors: Unavailable, for every way in which there is no answer: the service may be
// there again, and its rights be put right, while the process waits.
func (h *hook) ask(ctx context.Context, operation string, data []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, hookTimeout)
	defer cancel()
	text, err := json.Marshal(hookQuestion{operation, hookContext, base64.StdEncoding.EncodeToString(data)})
	if err != nil {
		return nil, err
	}
	got, err := h.exchange(ctx, text)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "key management service did not %s the operator's key: %w", operation, err)
	}
	var a hookAnswer
	if err := json.Unmarshal(got, &a); err != nil || a.Data == "" {
		return nil, errs.New(errs.Unavailable, "key management service did not %s the operator's key: its answer is no JSON with data", operation)
	}
	out, err := base64.StdEncoding.DecodeString(a.Data)
	if err != nil {
		return nil, errs.New(errs.Unavailable, "key management service did not %s the operator's key: data of its answer is not base64", operation)
	}
	return out, nil
}

func (h *hook) exchange(ctx context.Context, text []byte) ([]byte, error) {
	if len(h.command) > 0 {
		return h.run(ctx, text)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	if h.token != "" {
		r.Header.Set("Authorization", "Bearer "+h.token.Reveal())
	}
	resp, err := h.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxHookBytes))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New("it answered " + resp.Status) // the body may hold anything
	}
	return got, err
}

// run starts the program without a shell, and gives it the question as its input.
func (h *hook) run(ctx context.Context, text []byte) ([]byte, error) {
	cmd := exec.CommandContext(ctx, h.command[0], h.command[1:]...)
	cmd.Stdin = bytes.NewReader(text)
	cmd.WaitDelay = time.Second // for what it started and left behind
	out, complaint := &bounded{most: maxHookBytes}, &bounded{most: 512}
	cmd.Stdout, cmd.Stderr = out, complaint
	if err := cmd.Run(); err != nil {
		if said := strings.TrimSpace(complaint.String()); said != "" {
			return nil, errors.New(err.Error() + ": " + said)
		}
		return nil, err
	}
	return out.Bytes(), nil
}

// bounded keeps the beginning of what is written.
type bounded struct {
	bytes.Buffer
	most int
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), b.most-b.Len())])
	return len(p), nil
}

// HookConfig is the settings of the key management service.
type HookConfig struct {
	Command []string
	URL     string
	Token   config.Secret
}

func (c *HookConfig) declare(s *config.Set) {
	s.Strings(&c.Command, "key-hook-command", nil, "Program and arguments that wrap and unwrap the operator's key with a key management service, reading and printing JSON. The key file then holds wrapped keys only.").Expert()
	s.String(&c.URL, "key-hook-url", "", "The same by HTTP POST: an https address, or http on this machine.").Expert()
	s.Secret(&c.Token, "key-hook-token", "Bearer token for it.").Expert()
}

func (c *HookConfig) validate() error {
	if len(c.Command) > 0 && c.URL != "" {
		return config.Wrong("key_hook_url", "is set beside key_hook_command, one must do")
	}
	if len(c.Command) > 0 && c.Command[0] == "" {
		return config.Wrong("key_hook_command", "begins with no program")
	}
	if c.URL == "" {
		return nil
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return config.Wrong("key_hook_url", "must be an https address, or http on this machine: the operator's key goes over it")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
