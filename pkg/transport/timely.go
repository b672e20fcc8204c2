package transport

import (
	"net/http"
	"time"
)

// timely lets a response take most from when it begins. The server of the library counts from the header of the
// request, so that what took a client's patience to find out would be cut while it is sent.
func timely(most time.Duration, next http.Handler) http.Handler {
	if most <= 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(&timelyWriter{ResponseWriter: w, most: most, since: time.Now()}, r)
	})
}

// timelyWriter moves the deadline of a response when it begins.
type timelyWriter struct {
	http.ResponseWriter
	most  time.Duration
	since time.Time
	begun bool
}

// begin is called before anything is written. Who was quick has time enough left.
func (w *timelyWriter) begin() {
	if w.begun {
		return
	}
	w.begun = true
	if took := time.Since(w.since); took > w.most/8 {
		_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.most)) // then the old one holds
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *timelyWriter) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.begin()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *timelyWriter) Write(b []byte) (int, error) {
	w.begin()
	return w.ResponseWriter.Write(b)
}

// Flush is found by handlers that look for http.Flusher.
func (w *timelyWriter) Flush() {
	w.begin()
	_ = http.NewResponseController(w.ResponseWriter).Flush() // the client is gone if this fails
}

// Unwrap is for http.ResponseController.
func (w *timelyWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
