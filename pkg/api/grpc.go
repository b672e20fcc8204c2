package api

import "net/http"

// GRPC returns a handler of the gRPC calls of the table alone, for a listener that serves nothing else.
// nil: this process has none.
func (a *API) GRPC() http.Handler {
	mux := http.NewServeMux()
	calls := 0
	for _, rt := range a.mounted {
		if rt.Style == GRPC {
			mux.Handle(rt.Path, a.mux)
			calls++
		}
	}
	if calls == 0 {
		return nil
	}
	mux.HandleFunc("/", unknownCall)
	return mux
}

// unknownCall answers a call of a service that does not exist.
func unknownCall(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", "12")
	h.Set("Grpc-Message", "only metrics are taken here")
	w.WriteHeader(http.StatusOK)
}
