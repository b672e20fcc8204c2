package identity

import (
	"context"
	"encoding/base32"
	"encoding/json"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
	"github.com/amphora-metrics/amphora/pkg/iam"
)

// TestCodesAreThoseOfTheRFC has the vectors of RFC 6238 for SHA-1, of which apps show the last six digits.
func TestCodesAreThoseOfTheRFC(t *testing.T) {
	secret := []byte("12345678901234567890")
	for at, want := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"} {
		if got := totp(secret, stepAt(time.Unix(at, 0))); got != want {
			t.Errorf("at %d: %s, want %s", at, got, want)
		}
	}
}

// phone is a device as an app has it.
type phone struct {
	t      *testing.T
	c      *clock
	secret []byte
	serial string
}

// code is what it shows so many steps from now.
func (p *phone) code(steps int64) string { return totp(p.secret, stepAt(p.c.at)+steps) }

const accountPath = "/accounts/000000000000"

// enrolled makes a user with a device that is not enabled.
func enrolled(t *testing.T, x *Identities, c *clock, user, device string) *phone {
	t.Helper()
	if _, err := ask(t, x, "PUT", accountPath+"/users/"+user, "{}"); err != nil {
		t.Fatal(err)
	}
	out, err := ask(t, x, "POST", accountPath+"/users/"+user+"/mfa", `{"name": "`+device+`"}`)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := out["secret"].(string)
	secret, err := base32.StdEncoding.DecodeString(text)
	if err != nil || len(secret) != 20 || out["serial_number"] != "arn:aws:iam::000000000000:mfa/"+device {
		t.Fatalf("made: %v", out)
	}
	uri, err := url.Parse(out["secret_uri"].(string))
	if err != nil || uri.Scheme != "otpauth" || uri.Host != "totp" || uri.Query().Get("secret") != text {
		t.Errorf("for an app: %v", out)
	}
	return &phone{t: t, c: c, secret: secret, serial: "arn:aws:iam::000000000000:mfa/" + device}
}

func (p *phone) enable(x *Identities, user string) {
	p.t.Helper()
	device := p.serial[strings.LastIndexByte(p.serial, '/')+1:]
	if _, err := ask(p.t, x, "PUT", accountPath+"/users/"+user+"/mfa/"+device, `{"codes": ["`+p.code(-1)+`", "`+p.code(0)+`"]}`); err != nil {
		p.t.Fatal(err)
	}
}

func userOf(name string) *iam.Principal {
	return &iam.Principal{Account: "000000000000", ARN: "arn:aws:iam::000000000000:user/" + name, Type: iam.TypeUser, Name: name}
}

// twoReplicas have one store and one clock.
func twoReplicas(t *testing.T) (one, other *Identities, c *clock, b *away, dir string) {
	t.Helper()
	c = &clock{time.Date(2026, 1, 1, 0, 0, 5, 0, time.UTC)}
	b, dir = shelf(t)
	var err error
	if one, err = onShelf(t, b, c, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if other, err = onShelf(t, b, c, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	return one, other, c, b, dir
}

func TestADeviceIsGoodForItsUserOnceItHasShownCodes(t *testing.T) {
	one, other, c, _, dir := twoReplicas(t)
	p := enrolled(t, one, c, "ann", "phone")
	if _, err := one.MFA(t.Context(), userOf("ann"), p.serial, p.code(0)); errs.KindOf(err) != errs.Denied {
		t.Errorf("before it is enabled: %v", err)
	}
	for _, codes := range []string{`["000000", "000001"]`, `["` + p.code(0) + `", "` + p.code(0) + `"]`, `["` + p.code(0) + `", "` + p.code(-1) + `"]`, `["` + p.code(0) + `"]`, `["", ""]`, `["` + p.code(-9) + `", "` + p.code(-8) + `"]`} {
		if _, err := ask(t, one, "PUT", accountPath+"/users/ann/mfa/phone", `{"codes": `+codes+`}`); errs.KindOf(err) != errs.Invalid {
			t.Errorf("enabled with %s: %v", codes, err)
		}
	}
	p.enable(one, "ann")
	if err := other.update(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]struct{ user, serial, code string }{
		"the codes it was enabled with": {"ann", p.serial, p.code(0)}, "another user": {"bob", p.serial, p.code(1)},
		"another device": {"ann", p.serial + "x", p.code(1)}, "no device": {"ann", "", p.code(1)},
	} {
		if _, err := other.MFA(t.Context(), userOf(try.user), try.serial, try.code); errs.KindOf(err) != errs.Denied {
			t.Errorf("%s: %v", name, err)
		}
	}
	if at, err := other.MFA(t.Context(), userOf("ann"), p.serial, p.code(1)); err != nil || !at.Equal(c.at) {
		t.Errorf("the next code: %v %v", at, err)
	}
	// A change of the user keeps the device; the account shows that it is there, and nothing of its secret.
	if _, err := ask(t, one, "PUT", accountPath+"/users/ann", `{"policies": ["AmazonPrometheusQueryAccess"], "mfa_devices": []}`); err != nil {
		t.Fatal(err)
	}
	shown, err := ask(t, one, "GET", accountPath, "")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(shown)
	plain := base32.StdEncoding.EncodeToString(p.secret)
	if !strings.Contains(string(text), `"mfa_devices":[{"created":"2026-01-01T00:00:05Z","name":"phone"}]`) || strings.Contains(string(text), plain) {
		t.Errorf("shown: %s", text)
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), plain) || strings.Contains(string(data), "phone") || strings.Contains(path, "phone") {
			t.Errorf("%s is not sealed", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.at = c.at.Add(2 * time.Minute)
	if _, err := one.MFA(t.Context(), userOf("ann"), p.serial, p.code(0)); err != nil {
		t.Errorf("after the change: %v", err)
	}
	if _, err := ask(t, one, "DELETE", accountPath+"/users/ann/mfa/phone", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := one.MFA(t.Context(), userOf("ann"), p.serial, p.code(1)); errs.KindOf(err) != errs.Denied {
		t.Errorf("after it was deleted: %v", err)
	}
}

// TestACodeIsGoodOnceAtAllReplicas has many who show one code at the same time at two gateways.
func TestACodeIsGoodOnceAtAllReplicas(t *testing.T) {
	one, other, c, b, _ := twoReplicas(t)
	p := enrolled(t, one, c, "ann", "phone")
	p.enable(one, "ann")
	if err := other.update(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.at = c.at.Add(time.Minute)
	var wg sync.WaitGroup
	var taken, refused atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			_, err := []*Identities{one, other}[i%2].MFA(t.Context(), userOf("ann"), p.serial, p.code(0))
			switch {
			case err == nil:
				taken.Add(1)
			case errs.KindOf(err) == errs.Denied:
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 1 || refused.Load() != 7 {
		t.Errorf("%d taken, %d refused", taken.Load(), refused.Load())
	}
	c.at = c.at.Add(time.Hour)
	if _, err := other.MFA(t.Context(), userOf("ann"), p.serial, p.code(1)); err != nil {
		t.Errorf("a clock that is ahead: %v", err)
	}
	if _, err := one.MFA(t.Context(), userOf("ann"), p.serial, p.code(0)); errs.KindOf(err) != errs.Denied {
		t.Errorf("an older code after a newer one: %v", err)
	}
	c.at = c.at.Add(time.Hour)
	if _, err := other.MFA(t.Context(), userOf("ann"), p.serial, p.code(-2)); errs.KindOf(err) != errs.Denied {
		t.Errorf("a code of a minute ago: %v", err)
	}
	b.gone = true
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := other.MFA(ctx, userOf("ann"), p.serial, p.code(0)); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("without the bucket: %v", err)
	}
}

func TestADeviceRestsAfterWrongCodes(t *testing.T) {
	one, other, c, _, _ := twoReplicas(t)
	p := enrolled(t, one, c, "ann", "phone")
	p.enable(one, "ann")
	if err := other.update(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.at = c.at.Add(time.Hour)
	wrong := func(x *Identities) string {
		code := "000000"
		for stepOf(p.secret, code, stepAt(c.at)) != 0 {
			code = "000001"
		}
		_, err := x.MFA(t.Context(), userOf("ann"), p.serial, code)
		if errs.KindOf(err) != errs.Denied {
			t.Fatal(err)
		}
		return err.Error()
	}
	for i := range mfaFree {
		if text := wrong([]*Identities{one, other}[i%2]); !strings.Contains(text, "invalid MFA one time pass code") {
			t.Errorf("wrong code %d: %s", i+1, text)
		}
	}
	if _, err := one.MFA(t.Context(), userOf("ann"), p.serial, p.code(0)); err == nil || !strings.Contains(err.Error(), "try again in 3s") {
		t.Errorf("the right code at once: %v", err)
	}
	tried, begin := 0, c.at
	for c.at.Sub(begin) < 24*time.Hour { // somebody who guesses all day
		if strings.Contains(wrong(other), "invalid MFA") {
			tried++
		}
		c.at = c.at.Add(10 * time.Second)
	}
	if tried < 90 || tried > 110 {
		t.Errorf("%d codes were tried in a day", tried)
	}
	c.at = c.at.Add(mfaLongest)
	if _, err := one.MFA(t.Context(), userOf("ann"), p.serial, p.code(0)); err != nil {
		t.Errorf("the right code after the rest: %v", err)
	}
	if text := wrong(other); !strings.Contains(text, "invalid MFA one time pass code") {
		t.Errorf("it begins anew: %s", text)
	}
}

func TestDevicesOfAFileAreKnown(t *testing.T) {
	c := &clock{time.Date(2026, 1, 1, 0, 0, 5, 0, time.UTC)}
	device := "        mfa_devices: [{name: key, secret: 'gezd gnbv gy3t qojq gezd gnbv gy3t qojq'}]\n"
	text := strings.Replace(example, "        certificates: [alice", device+"        certificates: [alice", 1)
	x := withKey(t, text, c)
	alice, err := x.Key(t.Context(), "AKIDALICE001", "")
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("12345678901234567890")
	code := totp(secret, stepAt(c.at))
	at, err := x.MFA(t.Context(), alice.Principal, "arn:aws:iam::123456789012:mfa/key", code)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.MFA(t.Context(), alice.Principal, "arn:aws:iam::123456789012:mfa/key", code); errs.KindOf(err) != errs.Denied {
		t.Errorf("once more: %v", err)
	}
	cred, err := x.UserSession(t.Context(), alice.Principal, 0, at)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := withKey(t, text, c).Key(t.Context(), cred.AccessKey, cred.Token); err != nil || !k.Principal.MFA.Equal(at.Truncate(time.Second)) {
		t.Errorf("in another process: %+v %v", k.Principal, err)
	}
	for name, bad := range map[string]string{
		"short":      strings.Replace(device, "gezd gnbv gy3t qojq gezd gnbv gy3t qojq", "GEZDGNBV", 1),
		"not base32": strings.Replace(device, "gezd", "secr3t!", 1),
		"no name":    strings.Replace(device, "name: key", "name: 'a b'", 1),
		"twice":      strings.Replace(device, "}]", "}, {name: key, secret: GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ}]", 1),
	} {
		_, err := load(t, strings.Replace(example, "        certificates: [alice", bad+"        certificates: [alice", 1))
		if errs.KindOf(err) != errs.Invalid || err == nil || strings.Contains(err.Error(), "gnbv") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// records are the documents that say which codes were used.
func records(t *testing.T, x *Identities) map[string]bool {
	t.Helper()
	entries, err := x.store.List(t.Context(), mfaPrefix)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, e := range entries {
		out[e.Key] = true
	}
	return out
}

func TestWhatIsRememberedOfADeletedDeviceGoesADayLater(t *testing.T) {
	one, other, c, _, _ := twoReplicas(t)
	c.at = time.Now() // as documents are dated
	gone, kept := enrolled(t, one, c, "ann", "phone"), enrolled(t, one, c, "bob", "tablet")
	gone.enable(one, "ann")
	kept.enable(one, "bob")
	if _, err := ask(t, one, "DELETE", accountPath+"/users/ann/mfa/phone", ""); err != nil {
		t.Fatal(err)
	}
	ticks := func(x *Identities) map[string]bool {
		t.Helper()
		if err := x.tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		return records(t, x)
	}
	// A gateway that does not know yet that the device is gone must find the codes that were used.
	if n := len(ticks(one)); n != 2 {
		t.Fatalf("%d records at once, want both", n)
	}
	c.at = c.at.Add(mfaKept + time.Hour)
	d, err := one.look()
	if err != nil {
		t.Fatal(err)
	}
	if left := ticks(one); len(left) != 1 || !left[d.mfa[kept.serial].key] {
		t.Errorf("a day later: %v", left)
	}
	if left := ticks(other); len(left) != 1 {
		t.Errorf("the other gateway: %v", left)
	}
	// A user who goes takes the device along.
	if _, err := ask(t, one, "DELETE", accountPath+"/users/bob", ""); err != nil {
		t.Fatal(err)
	}
	c.at = c.at.Add(mfaKept - time.Hour)
	if n := len(ticks(one)); n != 1 {
		t.Errorf("%d records before it is looked for them again", n)
	}
	c.at = c.at.Add(time.Hour)
	if n := len(ticks(one)); n != 0 {
		t.Errorf("%d records when all is gone", n)
	}
}
