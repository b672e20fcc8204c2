package api

import (
	"net/http"
	"slices"
)

// HasCalls says whether this process serves gRPC calls of the table itself.
func (a *API) HasCalls() bool {
	return slices.ContainsFunc(a.mounted, func(rt Route) bool { return rt.Style == GRPC })
}

// OnlyCalls lets the gRPC calls of the table through to h and no other request, for a listener that serves nothing
// else while h, a gateway, may know all.
func (a *API) OnlyCalls(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	for i := range Routes {
		if Routes[i].Style == GRPC {
			mux.Handle(Routes[i].Path, h)
		}
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
