package api

import (
	"io"
	"net/http"
)

// countingWriter remembers the status and the size of an answer.
type countingWriter struct {
	http.ResponseWriter
	status  int // 0 until the answer begins
	written int64
	body    *countingBody // of the request; nil: not known
}

func (w *countingWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.begin(status)
	}
	w.ResponseWriter.WriteHeader(status)
}

// begin remembers the status. What is left of a body that was given up would be read as the next
// request of the connection, which therefore ends; the server does not see it, for the body is wrapped.
func (w *countingWriter) begin(status int) {
	w.status = status
	if w.body != nil && w.body.givenUp {
		w.Header().Set("Connection", "close")
	}
}

func (w *countingWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.begin(http.StatusOK)
	}
	n, err := w.ResponseWriter.Write(b)
	w.written += int64(n)
	return n, err
}

// Flush is found by handlers that look for http.Flusher.
func (w *countingWriter) Flush() {
	if w.status == 0 {
		w.begin(http.StatusOK)
	}
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

// Unwrap lets http.ResponseController reach the connection.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// countingBody remembers how much of a body was read.
type countingBody struct {
	io.ReadCloser
	length  int64 // as declared, below 0: not
	read    int64
	ended   bool
	givenUp bool // it failed, or was closed before its end
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if err != nil {
		b.ended, b.givenUp = err == io.EOF, err != io.EOF
	}
	return n, err
}

func (b *countingBody) Close() error {
	if !b.ended && b.read != b.length {
		b.givenUp = true
	}
	return b.ReadCloser.Close()
}
