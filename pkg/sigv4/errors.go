package sigv4

import (
	"fmt"
	"net/http"
)

// The codes of errors, as AWS clients know them.
const (
	MissingToken        = "MissingAuthenticationTokenException"
	IncompleteSignature = "IncompleteSignatureException"
	InvalidSignature    = "InvalidSignatureException"
)

// Error says why a request is not believed, in the words that clients of AWS expect. It holds no secret.
type Error struct {
	Code    string
	Message string
	Status  int  // HTTP
	Skewed  bool // the clock of the signer is off, or the signature is old
}

func (e *Error) Error() string { return e.Message }

func incomplete(format string, args ...any) error {
	return &Error{Code: IncompleteSignature, Status: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) error {
	return &Error{Code: InvalidSignature, Status: http.StatusForbidden, Message: fmt.Sprintf(format, args...)}
}
