package rules

import (
	"net/http"

	"github.com/amphora-metrics/amphora/pkg/tenant"
)

// maxTestBytes bounds a file of unit tests with its rules.
const maxTestBytes = 2 << 20

// Test runs the unit tests in the body over the tenant's rules, or over those that the body brings with it.
func (a *API) Test(w http.ResponseWriter, r *http.Request) error {
	id, err := tenant.FromContext(r.Context())
	if err != nil {
		return err
	}
	data, err := body(w, r, maxTestBytes)
	if err != nil {
		return err
	}
	out, err := a.b.Test(r.Context(), id, data)
	if err != nil {
		return err
	}
	return send(w, http.StatusOK, success{"success", out, nil})
}
