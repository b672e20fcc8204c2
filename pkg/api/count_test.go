package api

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestAConnectionEndsWithABodyThatWasGivenUp(t *testing.T) {
	for name, tc := range map[string]struct {
		length int64
		read   func(io.ReadCloser)
		close  bool
	}{
		"read to the end":         {4, func(b io.ReadCloser) { _, _ = io.Copy(io.Discard, b); _ = b.Close() }, false},
		"read to its length":      {4, func(b io.ReadCloser) { _, _ = io.ReadFull(b, make([]byte, 4)); _ = b.Close() }, false},
		"of unknown length":       {-1, func(b io.ReadCloser) { _, _ = io.ReadFull(b, make([]byte, 3)); _ = b.Close() }, true},
		"closed half way":         {4, func(b io.ReadCloser) { _, _ = io.ReadFull(b, make([]byte, 3)); _ = b.Close() }, true},
		"not touched":             {4, func(io.ReadCloser) {}, false}, // the server reads the rest, or ends the connection
		"none, and closed":        {0, func(b io.ReadCloser) { _ = b.Close() }, false},
		"failed while it is read": {5, func(b io.ReadCloser) { _, _ = io.ReadFull(b, make([]byte, 5)) }, true},
	} {
		var r io.Reader = strings.NewReader("abcd")
		if tc.length == 5 {
			r = io.MultiReader(r, failing{})
		}
		body := &countingBody{ReadCloser: io.NopCloser(r), length: tc.length}
		tc.read(body)
		w := &countingWriter{ResponseWriter: headerOnly{}, body: body}
		w.WriteHeader(http.StatusBadRequest)
		if got := w.Header().Get("Connection") == "close"; got != tc.close {
			t.Errorf("%s: ends %v, want %v", name, got, tc.close)
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

type headerOnly http.Header

func (h headerOnly) Header() http.Header       { return http.Header(h) }
func (headerOnly) Write(b []byte) (int, error) { return len(b), nil }
func (headerOnly) WriteHeader(int)             {}
