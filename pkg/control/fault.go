package control

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/amphora-metrics/amphora/pkg/errs"
)

// fault is an error with the members that clients of AWS read.
type fault struct {
	kind    errs.Kind
	text    string
	members map[string]any
}

func (f *fault) Error() string { return f.text }

// Unwrap gives f its kind.
func (f *fault) Unwrap() error { return errs.New(f.kind, "%s", f.text) }

// invalid says that a member of the request is wrong.
func invalid(field, text string) error {
	return &fault{errs.Invalid, text, map[string]any{
		"reason": "FIELD_VALIDATION_FAILED", "fieldList": []map[string]string{{"name": field, "message": text}},
	}}
}

func unreadable(text string) error {
	return &fault{errs.Invalid, text, map[string]any{"reason": "CANNOT_PARSE"}}
}

func missing(kind, id string) error {
	return &fault{errs.NotFound, kind + " not found: " + id, resource(kind, id)}
}

func conflict(kind, id, text string) error {
	return &fault{errs.Conflict, text, resource(kind, id)}
}

func quota(kind, id, code, text string) error {
	m := resource(kind, id)
	m["serviceCode"], m["quotaCode"] = "aps", code
	return &fault{errs.Quota, text, m}
}

func resource(kind, id string) map[string]any {
	return map[string]any{"resourceType": kind, "resourceId": id}
}

// retryAfterSeconds is when a call that failed in the server is worth another try.
const retryAfterSeconds = 2

// fail answers with err in the shape that clients of AWS read.
func (c *Control) fail(w http.ResponseWriter, operation string, err error) string {
	f, ok := errors.AsType[*fault](err)
	if !ok {
		f = &fault{kind: errs.KindOf(err), text: err.Error()}
		switch f.kind {
		case errs.Invalid:
			f.members = map[string]any{"reason": "OTHER"}
		case errs.Conflict, errs.NotFound:
			f.members = resource("workspace", "")
		case errs.Internal:
			f.text = "internal error, see the log of the process"
		}
	}
	code, status := f.kind.AWSType(), f.kind.HTTPStatus()
	if code == "" {
		code = errs.Internal.AWSType()
	}
	if status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", strconv.Itoa(retryAfterSeconds))
	}
	if status >= http.StatusInternalServerError {
		c.log.Error("call of the control plane failed", "operation", operation, "err", err)
		w.Header().Set("Retry-After", strconv.Itoa(retryAfterSeconds))
	}
	body := map[string]any{"__type": code, "message": f.text}
	for k, v := range f.members {
		body[k] = v
	}
	w.Header().Set("X-Amzn-Errortype", code)
	answer(w, status, body)
	return code
}

func answer(w http.ResponseWriter, status int, body any) {
	h := w.Header()
	h.Set("Cache-Control", "no-store,no-cache,must-revalidate")
	h.Set("X-Content-Type-Options", "nosniff")
	if body == nil {
		w.WriteHeader(status)
		return
	}
	h.Set("Content-Type", "application/json")
	data, err := json.Marshal(body)
	if err != nil {
		panic("BUG: an answer cannot be encoded: " + err.Error())
	}
	h.Set("Content-Length", strconv.Itoa(len(data)))
	w.WriteHeader(status)
	_, _ = w.Write(data) // the client is gone if this fails
}
