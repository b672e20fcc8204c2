package iam

import (
	"encoding/base64"
	"encoding/json"
	"net/http"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// CallerHeader carries who calls from the gateway to the services behind it, which believe it.
const CallerHeader = "X-Amphora-Caller"

// Caller is what services may know of a principal.
type Caller struct {
	Account   string `json:"account"`
	ARN       string `json:"arn"`
	ID        string `json:"id"`
	Type      string `json:"type"`
	AccessKey string `json:"access_key,omitempty"`
	// Workspace is the only one that a token may be used for; empty: any.
	Workspace string `json:"workspace,omitempty"`
}

// SetCaller writes who p is into h.
func SetCaller(h http.Header, p *Principal) {
	data, err := json.Marshal(Caller{p.Account, p.ARN, p.ID, p.Type, p.AccessKey, p.Workspace})
	if err != nil {
		panic("BUG: strings cannot be encoded: " + err.Error())
	}
	h.Set(CallerHeader, base64.RawStdEncoding.EncodeToString(data))
}

// CallerOf reads who calls. Errors: Unauthenticated if the request did not come through a gateway.
func CallerOf(h http.Header) (Caller, error) {
	data, err := base64.RawStdEncoding.DecodeString(h.Get(CallerHeader))
	var c Caller
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil || c.Account == "" {
		return Caller{}, errs.New(errs.Unauthenticated, "the request did not come through a gateway")
	}
	return c, nil
}
