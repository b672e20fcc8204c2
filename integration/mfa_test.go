package integration

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	bits "encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/amphora-metrics/amphora/integration/harness"
	"github.com/amphora-metrics/amphora/pkg/sigv4"
)

// authenticator is an app with one device.
type authenticator struct {
	t      *testing.T
	serial string
	secret []byte
}

// code is what the app shows so many steps from now.
func (a *authenticator) code(steps int64) string {
	m := hmac.New(sha1.New, a.secret)
	_, _ = m.Write(bits.BigEndian.AppendUint64(nil, uint64(time.Now().Unix()/30+steps)))
	sum := m.Sum(nil)
	return fmt.Sprintf("%06d", bits.BigEndian.Uint32(sum[sum[19]&15:])<<1>>1%1_000_000)
}

// wrong is a code that the app does not show.
func (a *authenticator) wrong() string {
	for n := 0; ; n++ {
		code := fmt.Sprintf("%06d", n)
		if !slices.ContainsFunc([]int64{-2, -1, 0, 1, 2}, func(steps int64) bool { return a.code(steps) == code }) {
			return code
		}
	}
}

// device makes a device of a user and enables it. One code of it is left, the next.
func (a *admin) device(ctx context.Context, user, name string) *authenticator {
	a.t.Helper()
	made := a.key(ctx, "iam", "mfa", "create", user, name)
	secret, err := base32.StdEncoding.DecodeString(made["secret"])
	must(a.t, err)
	d := &authenticator{a.t, made["serial_number"], secret}
	a.run(ctx, "400", "", "iam", "mfa", "enable", user, name, "000000", "000000")
	a.run(ctx, "", "", "iam", "mfa", "enable", user, name, d.code(-1), d.code(0))
	return d
}

// guardedPolicy lets workspaces be made by who has shown a code only.
const guardedPolicy = `{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Action": "aps:*", "Resource": "*"},
  {"Effect": "Deny", "Action": "aps:CreateWorkspace", "Resource": "*", "Condition": {"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}}}]}`

// guardedRole can be assumed with a code only.
const guardedRole = `policies: [AmazonPrometheusFullAccess]
trust:
  Version: "2012-10-17"
  Statement: {Effect: Allow, Action: "sts:AssumeRole", Principal: {AWS: "arn:aws:iam::000000000000:user/ann"}, Condition: {Bool: {"aws:MultiFactorAuthPresent": "true"}}}
`

// TestTheCommandLineShowsCodes enrols devices with amphoratool, and shows their codes with Amazon's SDK and with its
// command line.
func TestTheCommandLineShowsCodes(t *testing.T) {
	t.Parallel()
	ctx := bounded(t, 4*time.Minute)
	a := &admin{t: t, credential: filepath.Join(t.TempDir(), "root-credential")}
	a.node = everything(ctx, t, append(busyFlags(), "-auth.enabled", "-auth.root-credential-file="+a.credential, "-auth.identity-refresh=1s", "-auth.workspace-api-rate=0", "-audit.upload-interval=1s")...)
	n := a.node
	a.run(ctx, "", guardedPolicy, "iam", "put", "policies", "guarded", "-")
	a.run(ctx, "", "", "iam", "-policy", "guarded", "put", "users", "ann")
	a.run(ctx, "", guardedRole, "iam", "put", "roles", "ops", "-")
	made := a.key(ctx, "iam", "key", "create", "ann")
	one, two, three := a.device(ctx, "ann", "one"), a.device(ctx, "ann", "two"), a.device(ctx, "ann", "three")
	if out := a.run(ctx, "", "", "iam", "show"); !strings.Contains(out, `"name": "one"`) || strings.Contains(out, base32.StdEncoding.EncodeToString(one.secret)) {
		t.Errorf("shown:\n%s", out)
	}
	key := sigv4.Signer{AccessKey: made["access_key"], Secret: made["secret_key"], Region: "us-east-1", Service: "aps"}
	create := func(s sigv4.Signer) error {
		_, err := clientOf(n, s).CreateWorkspace(ctx, &amp.CreateWorkspaceInput{})
		return err
	}
	if err := create(key); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("with the key alone: %v", err)
	}
	service := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: aws.String(n.URL("")), Credentials: credentials.NewStaticCredentialsProvider(key.AccessKey, key.Secret, "")})
	code := one.code(1)
	got, err := service.GetSessionToken(ctx, &sts.GetSessionTokenInput{SerialNumber: &one.serial, TokenCode: &code})
	must(t, err)
	session := sigv4.Signer{AccessKey: *got.Credentials.AccessKeyId, Secret: *got.Credentials.SecretAccessKey, SessionToken: *got.Credentials.SessionToken, Region: "us-east-1", Service: "aps"}
	if err := create(session); err != nil {
		t.Errorf("with a code: %v", err)
	}
	if _, err := service.GetSessionToken(ctx, &sts.GetSessionTokenInput{SerialNumber: &one.serial, TokenCode: &code}); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Errorf("the code once more: %v", err)
	}

	cli := &amazonTool{t: t, key: key, at: n.URL("")}
	used := two.code(1)
	out := cli.run(ctx, "", "sts", "get-session-token", "--serial-number", two.serial, "--token-code", used)
	var answer struct {
		Credentials struct{ AccessKeyId, SecretAccessKey, SessionToken string }
	}
	must(t, json.Unmarshal([]byte(out), &answer))
	inner := *cli
	inner.key = sigv4.Signer{AccessKey: answer.Credentials.AccessKeyId, Secret: answer.Credentials.SecretAccessKey, SessionToken: answer.Credentials.SessionToken}
	inner.run(ctx, "", "amp", "create-workspace", "--alias", "by-code")
	cli.run(ctx, "AccessDenied", "amp", "create-workspace", "--alias", "without")
	role := []string{"sts", "assume-role", "--role-arn", "arn:aws:iam::000000000000:role/ops", "--role-session-name", "night"}
	cli.run(ctx, "AccessDenied", role...)
	cli.run(ctx, "invalid MFA one time pass code", append(role, "--serial-number", two.serial, "--token-code", used)...) // by now the device may show another
	cli.run(ctx, "", append(role, "--serial-number", three.serial, "--token-code", three.code(1))...)
	inner.run(ctx, "", role...) // the session has shown a code

	a.run(ctx, "", "", "iam", "mfa", "delete", "ann", "one")
	code = one.code(1)
	if _, err := service.GetSessionToken(ctx, &sts.GetSessionTokenInput{SerialNumber: &one.serial, TokenCode: &code}); err == nil || !strings.Contains(err.Error(), "no MFA device") {
		t.Errorf("of a deleted device: %v", err)
	}
	must(t, harness.Poll(ctx, func(ctx context.Context) error {
		out := a.run(ctx, "", "", "audit", "-from", "1h", "-json")
		for _, want := range []string{`"serialNumber":"arn:aws:iam::000000000000:mfa/one"`, `"mfaAuthenticated":"true"`} {
			if !strings.Contains(strings.ReplaceAll(out, `": "`, `":"`), want) {
				return fmt.Errorf("the audit has no %s:\n%s", want, out)
			}
		}
		if strings.Contains(out, base32.StdEncoding.EncodeToString(one.secret)) {
			t.Errorf("secrets in the audit:\n%s", out)
		}
		return nil
	}))
}

// TestOfGatewaysThatAreShownOneCodeOneTakesIt shows each code to two processes at once, several times.
func TestOfGatewaysThatAreShownOneCodeOneTakesIt(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts real processes; not in -short")
	}
	ctx := bounded(t, 3*time.Minute)
	dir := t.TempDir()
	credential, key := filepath.Join(dir, "root-credential"), filepath.Join(dir, "operator.key")
	must(t, os.WriteFile(key, []byte(strings.Repeat("0123456789abcdef", 4)), 0o600))
	c := harness.Start(ctx, t, harness.Options{Binary: binary(ctx, t), Files: true, Replicas: 1, Flags: busyFlags(), Nodes: []harness.Spec{{Name: "store", Target: "ingester,distributor"}}})
	var gateways []*admin
	for _, name := range []string{"gateway-1", "gateway-2"} {
		g, err := c.Add(harness.Spec{Name: name, Target: "gateway", Flags: []string{"-auth.enabled", "-auth.root-credential-file=" + credential, "-auth.key-file=" + key,
			"-auth.identity-refresh=1s", "-auth.failed-logins-per-minute=0", "-gateway.upstreams=distributor=" + c.Node("store").URL("")}})
		must(t, err)
		must(t, g.WaitReady(ctx))
		gateways = append(gateways, &admin{t: t, node: g, credential: credential})
	}
	first := gateways[0]
	first.run(ctx, "", "", "iam", "put", "users", "ann")
	made := first.key(ctx, "iam", "key", "create", "ann")
	var devices []*authenticator
	for _, name := range []string{"one", "two", "three", "four"} {
		devices = append(devices, first.device(ctx, "ann", name))
	}
	for _, d := range devices {
		show := func(a *admin, code string) error {
			service := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: aws.String(a.node.URL("")), RetryMaxAttempts: 1,
				Credentials: credentials.NewStaticCredentialsProvider(made["access_key"], made["secret_key"], "")})
			_, err := service.GetSessionToken(ctx, &sts.GetSessionTokenInput{SerialNumber: &d.serial, TokenCode: &code})
			return err
		}
		for _, a := range gateways { // each of which looks for changes by itself
			eventually(ctx, t, "the device to be known", func() error {
				if err := show(a, d.wrong()); err == nil || !strings.Contains(err.Error(), "invalid MFA one time pass code") {
					return fmt.Errorf("a wrong code: %w", err)
				}
				return nil
			})
		}
		code := d.code(1)
		begin, answers := make(chan struct{}), make(chan error)
		shown := 0
		for range 4 {
			for _, a := range gateways {
				shown++
				go func() {
					<-begin
					answers <- show(a, code)
				}()
			}
		}
		close(begin)
		taken := 0
		for range shown {
			switch err := <-answers; {
			case err == nil:
				taken++
			case !strings.Contains(err.Error(), "AccessDenied") || !strings.Contains(err.Error(), "MultiFactorAuthentication failed"):
				t.Errorf("%s: %v", d.serial, err)
			}
		}
		if taken != 1 {
			t.Errorf("%s: of %d times that a code was shown, %d were taken", d.serial, shown, taken)
		}
	}
}

// amazonTool is Amazon's, with a key.
type amazonTool struct {
	t   *testing.T
	key sigv4.Signer
	at  string
}

// run runs it; an empty complaint expects success. Without the program the test is skipped.
func (c *amazonTool) run(ctx context.Context, complaint string, args ...string) string {
	c.t.Helper()
	path, err := exec.LookPath("aws")
	if err != nil {
		harness.Need(c.t, fmt.Errorf("aws is not installed: %w", harness.ErrNoTool))
	}
	cmd := exec.CommandContext(ctx, path, append([]string{"--endpoint-url", c.at, "--output", "json"}, args...)...)
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+c.key.AccessKey, "AWS_SECRET_ACCESS_KEY="+c.key.Secret, "AWS_SESSION_TOKEN="+c.key.SessionToken, "AWS_DEFAULT_REGION=us-east-1",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
	out, err := cmd.CombinedOutput()
	if (err == nil) != (complaint == "") || !strings.Contains(string(out), complaint) {
		c.t.Errorf("aws %q: %v, want %q:\n%s", args, err, complaint, out)
	}
	return string(out)
}
