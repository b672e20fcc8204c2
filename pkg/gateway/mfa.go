package gateway

import (
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// schemeMFA is what codes of devices are counted as among the logins.
const schemeMFA = "mfa"

var tokenCode = regexp.MustCompile(`^[0-9]{6}$`)

// secondFactor checks the code of a device that a call of the security token service shows, if it shows one. Who calls
// is known by then.
func (g *Gateway) secondFactor(r *http.Request, c *call, form url.Values) error {
	serial, code := form.Get("SerialNumber"), form.Get("TokenCode")
	switch {
	case serial == "" && code == "":
		return nil
	case serial == "" || code == "":
		return refuse(http.StatusForbidden, "AccessDenied", "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code")
	case !tokenCode.MatchString(code):
		return refuse(http.StatusBadRequest, "ValidationError", "TokenCode must be 6 digits")
	case len(serial) > 256:
		return refuse(http.StatusBadRequest, "ValidationError", "SerialNumber must have at most 256 bytes")
	}
	if err := g.guesses.check(c.client.address, serial, g.now()); err != nil {
		return err
	}
	at, err := g.deps.Identities.MFA(r.Context(), c.principal, serial, code)
	result := "success"
	switch {
	case err == nil:
		c.mfa = at
	case errs.KindOf(err) == errs.Denied:
		result = "failure"
		g.guesses.failed(c.client.address, serial, g.now())
		err = refuse(http.StatusForbidden, "AccessDenied", "%s", err)
	default:
		result = "unavailable"
	}
	g.metrics.logins.WithLabelValues(schemeMFA, result).Inc()
	return err
}

// secondFactor answers the keys of conditions about codes of devices. As in AWS, who uses a lasting credential has
// neither, and sessions in a role never have a code.
func (c *call) secondFactor(key string, now time.Time) ([]string, bool) {
	at := c.principal.MFA
	if !c.mfa.IsZero() {
		at = c.mfa
	}
	if key == "aws:multifactorauthage" {
		return []string{strconv.FormatInt(int64(now.Sub(at).Seconds()), 10)}, !at.IsZero()
	}
	return []string{strconv.FormatBool(!at.IsZero())}, !at.IsZero() || !c.principal.Since.IsZero()
}
