package ingest

import (
	"net/http"
	"strconv"
	"time"
)

// holdBack delays the answer to a push that arrived at start until it has taken as long as the
// tenant's artificial delay says, and tells the client by how much. The push is stored by then and
// its body is given back, so what waits holds no memory but that of its connection.
func holdBack(w http.ResponseWriter, r *http.Request, start time.Time, delay time.Duration) {
	if delay <= 0 {
		return
	}
	began := time.Now()
	if left := delay - began.Sub(start); left > 0 {
		timer := time.NewTimer(left)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
	}
	ms := float64(time.Since(began)) / float64(time.Millisecond)
	w.Header().Set("Server-Timing", "artificial_delay;dur="+strconv.FormatFloat(ms, 'f', 1, 64))
}
